"""Differences in the image preprocessing of other libraries are reported at conversion."""

from dataclasses import replace
from pathlib import Path

import pytest

from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights

from .networks import random_model, save


def test_what_an_image_processor_does_otherwise_is_said(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")

    def lines(target: str, out: str, **preprocessing) -> str:
        weights.description.preprocessing.update(preprocessing)
        return " ".join(convert_weights(weights, target, tmp_path / out))

    assert "image processor" not in lines("transformers", "a")
    assert "warps images of 384 px; ours crops" in lines("transformers", "b", image_size=[384, 384])
    assert "image processor" not in lines("transformers", "c", eval_preset="official")
    assert "antialiases" in lines("timm", "d", eval_preset="mindcv")
    assert "are not part of this file" in lines("timm", "e.safetensors")


@pytest.mark.parametrize(
    ("preset", "antialias", "is_told"),
    [("timm", None, False), ("mindcv", None, True), ("mindcv", True, False), ("timm", False, True)],
)
def test_images_that_were_not_antialiased_are_told_and_others_are_not(
    preset: str, antialias: bool | None, is_told: bool, tmp_path: Path
) -> None:
    weights = save(random_model(), tmp_path / "ours")
    how = Preprocessing((64, 64), eval_preset=preset, antialias=antialias).to_json()
    weights.description.preprocessing.update(how)
    lines = convert_weights(weights, "timm", tmp_path / "timm")
    assert any("antialiases images" in line for line in lines) == is_told


def test_what_other_libraries_cannot_say_of_values_is_told(tmp_path: Path) -> None:
    weights = save(random_model(), tmp_path / "ours")
    ranged = replace(
        weights,
        description=replace(
            weights.description,
            preprocessing=weights.description.preprocessing | {"value_range": [0.0, 4000.0]},
        ),
    )
    for target, format in (("timm", "timm"), ("transformers", "transformers")):
        lines = convert_weights(ranged, target, tmp_path / target, allow_drift=True)
        assert any(
            format in line.lower() and "map 0 to 4000 onto 0 to 255" in line for line in lines
        )
    assert not any(
        "range of values" in line
        for line in convert_weights(weights, "timm", tmp_path / "plain", allow_drift=True)
    )
    convert_weights(ranged, "official", tmp_path / "official", allow_drift=True)
    assert open_weights(tmp_path / "official").description.preprocessing["value_range"] == [
        0.0,
        4000.0,
    ]
