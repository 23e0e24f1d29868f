"""The list of public weights."""

import pytest
import timm
import torch

from convnextv2.errors import CheckpointError, RunError
from convnextv2.find import find_weights
from convnextv2.model.convnext import SIZES
from convnextv2.weights.catalog import CATALOG, proposed_start, public_weights


def test_names_are_those_of_timm() -> None:
    known = set(timm.list_pretrained("*convnext*"))
    assert [weights.name for weights in CATALOG if weights.name not in known] == []
    assert len({weights.name for weights in CATALOG}) == len(CATALOG)
    assert public_weights("convnext_tiny.in12k_ft_in1k").repository == (
        "timm/convnext_tiny.in12k_ft_in1k"
    )
    assert public_weights("convnext_tiny") is None


def test_licences_and_sizes_are_those_of_timm() -> None:
    for weights in CATALOG:
        config = timm.get_pretrained_cfg(weights.name)
        assert weights.licence == config.license, weights.name
        assert config.hf_hub_id in ("timm/", weights.repository)
        assert weights.image_size == config.input_size[1], weights.name
        assert weights.model in SIZES


@pytest.mark.parametrize("name", sorted({w.name.partition(".")[0] for w in CATALOG}))
def test_parameters_are_those_of_timm(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    millions = round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2)
    assert {w.parameters_m for w in CATALOG if w.name.startswith(f"{name}.")} == {millions}


def test_what_is_proposed_allows_commercial_use() -> None:
    proposed = {size: proposed_start(size) for size in SIZES if size != "convnextv2_huge"}
    assert all(weights.licence == "apache-2.0" for weights in proposed.values())
    assert all(size == weights.model for size, weights in proposed.items())
    assert proposed["convnextv2_tiny"].name == "convnext_tiny.in12k_ft_in1k"
    with pytest.raises(CheckpointError, match="no public weights for model = convnextv2_huge"):
        proposed_start("convnextv2_huge")


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("convnext_tiny", "Did you mean convnext_tiny.in12k_ft_in1k or convnext_tiny."),
        ("convnext_nano.in12k_ft_in1", "Did you mean convnext_nano.in12k_ft_in1k"),
        ("shoes", "lists."),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_nearest(name: str, proposed: str) -> None:
    with pytest.raises(RunError) as error:
        find_weights(name)
    assert proposed in str(error.value)
    assert ("Did you mean" in str(error.value)) == ("Did you mean" in proposed)
