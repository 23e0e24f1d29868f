import pytest
import torch

from convnextv2.model.convnext import SIZES, ConvNeXtV2, create_model
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.pyramid import Pyramid
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.optim import build_optimizer, freeze, layer_scale, parameter_groups


@pytest.mark.parametrize(
    ("size", "decay", "form", "stem"),
    [
        ("convnextv2_atto", 0.9, "single", 0.282),
        ("convnextv2_nano", 0.9, "single", 0.229),
        ("convnextv2_tiny", 0.9, "single", 0.150),
        ("convnextv2_huge", 0.75, "single", 3.2e-5),
        ("convnextv2_base", 0.6, "group", 0.0013),
    ],
)
def test_stem_scales_are_those_of_the_official_recipes(
    size: str, decay: float, form: str, stem: float
) -> None:
    assert layer_scale(
        "downsample_layers.0.0.weight", SIZES[size][0], decay, form
    ) == pytest.approx(stem, rel=0.03)
    assert (
        layer_scale("head.weight", SIZES[size][0], decay, form)
        == layer_scale("norm.bias", SIZES[size][0], decay, form)
        == 1
    )


def test_single_form_numbers_the_blocks_one_by_one() -> None:
    def layer(name: str) -> float:  # decay 1/2: the scale is 2^-(layers above)
        return layer_scale(name, (2, 2, 6, 2), 0.5)

    assert layer("downsample_layers.0.0.weight") == layer("stages.0.0.norm.weight") == 0.5**12
    assert layer("downsample_layers.2.1.weight") == layer("stages.2.0.grn.gamma") == 0.5**8
    assert layer("stages.2.5.pwconv1.weight") == 0.5**3
    assert layer("stages.3.1.pwconv2.bias") == 0.5


def test_group_form_equals_the_official_twelve_layers_and_fits_other_depths() -> None:
    def layer(name: str, depths: tuple[int, ...] = (3, 3, 27, 3)) -> int:
        return round(-torch.log2(torch.tensor(layer_scale(name, depths, 0.5, "group"))).item())

    names = [
        "downsample_layers.0.0.weight",
        "stages.0.2.norm.weight",
        "downsample_layers.1.0.weight",
        "stages.1.0.norm.bias",
        "downsample_layers.2.1.bias",
        "stages.2.0.norm.bias",
        "stages.2.3.norm.bias",
        "stages.2.26.norm.bias",
        "downsample_layers.3.0.bias",
        "stages.3.2.norm.bias",
        "head.weight",
    ]
    assert [13 - layer(name) for name in names] == [0, 1, 2, 2, 3, 3, 4, 11, 12, 12, 13]
    assert layer("stages.3.0.norm.bias", (2, 2, 6, 2)) == 1
    assert layer("stages.2.5.norm.bias", (2, 2, 6, 2)) == 2


def test_norms_biases_grn_and_mask_token_are_exempt_from_decay() -> None:
    model = FCMAE(ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=None), decoder_dim=8)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.05)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    norms = (
        ".norm.",
        "downsample_layers.0.1.",
        "downsample_layers.1.0.",
        "downsample_layers.2.0.",
        "downsample_layers.3.0.",
    )
    assert decayed == {
        name
        for name in names.values()
        if name.endswith("weight") and not any(norm in name for norm in norms)
    }
    assert sum(len(group["params"]) for group in groups) == len(names)
    everything = parameter_groups(model, weight_decay=0.05, weight_decay_filter="disable")
    assert [group["weight_decay"] for group in everything] == [0.05]
    groups = parameter_groups(model, weight_decay=0.05, weight_decay_filter="auto")
    spared = {
        names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]
    }
    assert spared == {
        name for name in names.values() if any(norm in name for norm in (*norms, ".grn."))
    }


def test_atto_spares_as_many_tensors_as_mindcvs_filter() -> None:
    """MindCV's norm_and_bias leaves 41 of atto's 140 tensors to decay, 59 of tiny's 200."""
    for size, expected in (("convnextv2_atto", 41), ("convnextv2_tiny", 59)):
        with torch.device("meta"):
            model = create_model(size)
        groups = parameter_groups(model, weight_decay=1.0)
        assert sum(len(group["params"]) for group in groups if group["weight_decay"]) == expected


@pytest.mark.parametrize(
    ("what", "trained"),
    [
        ("none", "all"),
        ("stem", "stages.0"),
        ("stages1", "downsample_layers.1"),
        ("encoder", "norm"),
    ],
)
def test_freezing_fixes_the_stem_side_first(what: str, trained: str) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    freeze(model, what)
    open_ = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert (len(open_) == len(list(model.parameters()))) == (trained == "all")
    if trained != "all":
        assert any(name.startswith(trained) for name in open_)
        assert not any(name.startswith("downsample_layers.0") for name in open_)
        assert any(name.startswith("stages.0") for name in open_) == (what == "stem")
        assert any(name.startswith("head") for name in open_)


def test_frozen_parameters_do_not_reach_the_optimizer() -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    freeze(model, "encoder")
    optimizer = build_optimizer(Recipe(layer_decay=0.9), model, model.depths)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize(
    ("size", "layers", "stem", "stages"),
    [
        ("convnextv2_base", 13, 0.254, (0.282, 0.314, 0.349, 0.387)),
        ("convnextv2_tiny", 7, 0.478, (0.531, 0.590, 0.656, 0.729)),
        ("convnextv2_atto", 6, 0.531, (0.590, 0.656, 0.729, 0.810)),
    ],
)
def test_stage_form_gives_the_factors_of_the_official_segmentation_code(
    size: str, layers: int, stem: float, stages: tuple[float, ...]
) -> None:
    def factor(name: str) -> float:
        return layer_scale(name, SIZES[size][0], 0.9, "stage")

    assert factor("downsample_layers.0.0.weight") == 0.9**layers == pytest.approx(stem, abs=5e-4)
    for stage, expected in enumerate(stages):
        assert factor(f"stages.{stage}.1.dwconv.weight") == pytest.approx(expected, abs=5e-4)
        assert factor(f"downsample_layers.{stage}.1.weight") == factor("downsample_layers.0.0.bias")
    assert factor("norms.2.weight") == factor("decode_head.conv_seg.weight") == 1


@pytest.mark.parametrize("form", ["single", "group", "stage"])
def test_an_encoder_inside_another_network_learns_as_fast_as_by_itself(form: str) -> None:
    depths, dims = (2, 2, 6, 2), (4, 8, 12, 16)
    encoder = ConvNeXtV2(depths, dims, num_classes=None)
    names = [name for name, _ in encoder.named_parameters()]
    network = torch.nn.ModuleDict({"backbone": torch.nn.ModuleDict({"pyramid": Pyramid(encoder)})})
    for name, _ in network.named_parameters():
        inside = name.removeprefix("backbone.pyramid.encoder.")
        expected = layer_scale(inside, depths, 0.8, form) if inside in names else 1.0
        assert layer_scale(name, depths, 0.8, form) == expected


def test_base_has_the_groups_of_the_official_detection_code() -> None:
    """Factors of layer_wise, num_layers 12: 0.95^(13 - id), written out from its rule."""
    ids = {
        "downsample_layers.0.0.weight": 0,
        "stages.0.2.dwconv.weight": 1,
        "downsample_layers.1.1.weight": 2,
        "stages.1.0.dwconv.weight": 2,
        "downsample_layers.2.1.weight": 3,
        "stages.2.2.dwconv.weight": 3,
        "stages.2.26.dwconv.weight": 11,
        "downsample_layers.3.1.weight": 12,
        "stages.3.0.dwconv.weight": 12,
        "norms.3.weight": 13,
    }
    for name, layer in ids.items():
        found = layer_scale(f"pyramid.encoder.{name}", SIZES["convnextv2_base"][0], 0.95, "group")
        assert found == pytest.approx(0.95 ** (13 - layer)), name


def test_freezing_finds_the_encoder_inside_another_network() -> None:
    network = Pyramid(ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=None))
    freeze(network, "stages2")
    learns = {name for name, p in network.named_parameters() if p.requires_grad}
    assert "encoder.stages.2.0.dwconv.weight" in learns
    assert "norms.0.weight" in learns
    assert not any(name.startswith("encoder.stages.1.") for name in learns)
    freeze(network, "encoder")
    learns = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learns == {f"norms.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")}
