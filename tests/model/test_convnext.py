import json
import re
import warnings

import numpy as np
import pytest
import timm
import torch
from model.reference import randomise
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.model.convnext import SIZES, ConvNeXtV2, create_model

# Parameters with 1000 classes, parameters of the encoder alone, and the number of tensors, from
# arXiv 2301.00808 and the released checkpoints; small and xlarge are timm's networks.
PARAMETERS = {
    "convnextv2_atto": (3_708_400, 3_386_760, 140),
    "convnextv2_femto": (5_233_240, 4_847_472, 140),
    "convnextv2_pico": (9_066_280, 8_552_256, 140),
    "convnextv2_nano": (15_623_800, 14_981_520, 160),
    "convnextv2_tiny": (28_635_496, 27_864_960, 200),
    "convnextv2_small": (50_318_440, 49_547_904, 380),
    "convnextv2_base": (88_717_800, 87_690_752, 380),
    "convnextv2_large": (197_956_840, 196_416_768, 380),
    "convnextv2_xlarge": (350_449_640, 348_396_544, 380),
    "convnextv2_huge": (660_289_640, 657_467_008, 380),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_the_published_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model, encoder = create_model(name), create_model(name, num_classes=None)
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, encoder)]
    assert (*counts, len(model.state_dict())) == PARAMETERS[name]


def test_a_network_of_numpys_numbers_can_be_saved() -> None:
    sizes = [1, 1, 2, 1], [4, 8, 12, 16]
    given = ConvNeXtV2(*map(np.array, sizes), num_classes=np.int64(2), norm_eps=np.float64(1e-5))
    expected = ConvNeXtV2(*sizes, num_classes=2, norm_eps=1e-5)
    assert json.dumps(given.arguments) == json.dumps(expected.arguments)
    assert json.dumps([given.depths, given.dims, given.num_classes])  # for other tools' files


def as_timm(name: str) -> str:
    name = re.sub(r"^downsample_layers\.0\.", "stem.", name)
    name = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", name)
    name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", name)
    name = (
        name.replace("dwconv", "conv_dw")
        .replace("pwconv", "mlp.fc")
        .replace("grn.gamma", "mlp.grn.weight")
        .replace("grn.beta", "mlp.grn.bias")
    )
    return re.sub(r"^norm\.", "head.norm.", re.sub(r"^head\.", "head.fc.", name))


def as_transformers(name: str) -> str:
    if name.startswith("head."):
        return name.replace("head", "classifier")
    name = name.replace("grn.gamma", "grn.weight").replace("grn.beta", "grn.bias")
    if name.startswith("norm."):
        return "convnextv2." + name.replace("norm", "layernorm")
    name = name.replace("downsample_layers.0.0", "embeddings.patch_embeddings").replace(
        "downsample_layers.0.1", "embeddings.layernorm"
    )
    name = re.sub(
        r"^downsample_layers\.(\d)\.(\d)", r"encoder.stages.\1.downsampling_layer.\2", name
    )
    name = re.sub(r"^stages\.(\d)\.(\d+)\.", r"encoder.stages.\1.layers.\2.", name).replace(
        ".norm.", ".layernorm."
    )
    return "convnextv2." + name


def peer(library: str, size: str) -> torch.nn.Module:
    if library == "timm":
        return timm.create_model(size)
    depths, dims = SIZES[size]
    config = ConvNextV2Config(
        depths=list(depths), hidden_sizes=list(dims), num_labels=1000, layer_norm_eps=1e-6
    )
    return ConvNextV2ForImageClassification(config)


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("size", ["convnextv2_atto", "convnextv2_tiny"])
def test_logits_and_gradients_equal_those_of_peers_in_float64(library: str, size: str) -> None:
    ours = randomise(create_model(size).double(), scale=0.1)
    theirs = peer(library, size).double().train()
    rename = {"timm": as_timm, "transformers": as_transformers}[library]
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(
        {
            rename(name): tensor.view(shapes[rename(name)])
            for name, tensor in ours.state_dict().items()
        }
    )
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    ours_in, theirs_in = images.clone().requires_grad_(), images.clone().requires_grad_()

    logits = ours(ours_in)
    expected = theirs(theirs_in) if library == "timm" else theirs(theirs_in).logits
    cotangent = torch.randn_like(logits)
    logits.backward(cotangent)
    expected.backward(cotangent)

    def close(a: torch.Tensor, b: torch.Tensor) -> bool:
        return bool((a.flatten() - b.flatten()).abs().max() <= 1e-10 * b.abs().max())

    assert close(logits, expected)
    assert close(ours_in.grad, theirs_in.grad)
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    far = [
        name
        for name, parameter in ours.named_parameters()
        if not close(parameter.grad, gradients[rename(name)])
    ]
    assert not far


def test_float32_and_bfloat16_agree_with_float64_within_their_precision() -> None:
    model = randomise(create_model("convnextv2_atto", num_classes=10).double(), scale=0.1)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    expected = model(images)
    scale = expected.abs().max()
    model = model.float()
    assert (model(images.float()) - expected).abs().max() / scale < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(images.float()) - expected).abs().max() / scale < 5e-2


def test_compiled_model_agrees_with_eager() -> None:
    model = randomise(
        ConvNeXtV2((1, 1, 1, 1), (8, 16, 32, 64), num_classes=10).double(), scale=0.2
    ).float()
    images = torch.randn(2, 3, 64, 64)
    expected = model(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations
        compiled = torch.compile(model, fullgraph=True)(images)
    assert torch.allclose(
        compiled, expected, rtol=1e-4, atol=1e-4 * expected.detach().abs().max().item()
    )


@pytest.mark.parametrize(("stem_stride", "size"), [(4, (96, 64)), (2, (32, 48)), (1, (8, 24))])
def test_features_have_the_strides_and_widths_of_the_stages(
    stem_stride: int, size: tuple[int, int]
) -> None:
    model = create_model("convnextv2_atto", in_channels=5, num_classes=0, stem_stride=stem_stride)
    images = torch.randn(1, 5, *size)
    shapes = [tuple(feature.shape) for feature in model.features(images)]
    assert shapes == [
        (1, 40 * 2**i, size[0] // (stem_stride * 2**i), size[1] // (stem_stride * 2**i))
        for i in range(4)
    ]
    assert model(images).shape == (1, 320)
    assert (
        create_model("convnextv2_atto", in_channels=5, num_classes=None, stem_stride=stem_stride)(
            images
        ).shape
        == shapes[-1]
    )


def test_rows_and_columns_beyond_the_stride_are_floored_as_by_timm() -> None:
    ours = create_model("convnextv2_atto").double()
    theirs = timm.create_model("convnextv2_atto").double().eval()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(
        {
            as_timm(name): tensor.view(shapes[as_timm(name)])
            for name, tensor in randomise(ours).state_dict().items()
        }
    )
    images = torch.randn(1, 3, 75, 110, dtype=torch.float64)
    assert torch.allclose(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for grad_checkpoint in (False, True):
        model = randomise(
            ConvNeXtV2(
                (1, 1, 1, 1), (4, 8, 16, 32), num_classes=3, grad_checkpoint=grad_checkpoint
            ).double()
        )
        model(torch.ones(1, 3, 32, 32, dtype=torch.float64)).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_head_init_scale_scales_the_head_alone() -> None:
    torch.manual_seed(1)
    one = create_model("convnextv2_atto")
    torch.manual_seed(1)
    small = create_model("convnextv2_atto", head_init_scale=0.001)
    assert torch.allclose(small.head.weight, one.head.weight * 0.001)
    assert torch.equal(small.stages[0][0].pwconv1.weight, one.stages[0][0].pwconv1.weight)
    assert one.stages[3][1].pwconv2.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 16, 64), "at least 32 px"),
        (torch.zeros(1, 4, 64, 64), "expects 3"),
        (torch.zeros(3, 64, 64), r"the shape \(3, 64, 64\): expected .* as images\[None\]"),
        (
            torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
            r"are torch\.uint8: .* Divide pixels by 255",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_with_the_remedy(
    images: torch.Tensor, message: str
) -> None:
    with pytest.raises(ConvNeXtV2Error, match=message):
        create_model("convnextv2_atto")(images)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"depths": (1, 1)}, r"depths = \[1, 1\]: expected four whole numbers"),
        ({"depths": (1.0, 1, 1, 1)}, "expected four whole numbers"),
        ({"depths": (1, 1, 10**9, 1)}, "expected four whole numbers >= 1 and <= 1,000"),
        ({"dims": (4, 8, 12, 10**9)}, "expected four whole numbers >= 1 and <= 65,536"),
        ({"in_channels": 10**9}, "in_channels = 1000000000: expected .* <= 10,000"),
        ({"num_classes": 10**30}, "expected a whole number from 0 to 10,000,000"),
        ({"dims": (4, 8, 0, 16)}, "expected four whole numbers"),
        ({"in_channels": 0}, "in_channels = 0: expected a whole number >= 1"),
        ({"in_channels": 2.5}, "expected a whole number"),
        (
            {"num_classes": -1},
            "num_classes = -1: expected a whole number from 0 to 10,000,000, or None",
        ),
        ({"stem_stride": 3}, "stem_stride = 3: expected one of 4, 2, 1"),
        ({"gelu": "relu"}, "gelu = 'relu': expected one of exact, tanh"),
        ({"grn_scope": "all"}, "grn_scope = 'all': expected one of image, batch"),
        ({"drop_path_rate": 1.0}, "drop_path_rate = 1.0: expected a number >= 0 and < 1"),
        ({"drop_path_rate": -0.1}, "expected a number >= 0 and < 1"),
        ({"norm_eps": float("nan")}, "norm_eps = nan: expected a number > 0"),
        ({"inner_eps": -1e-6}, "inner_eps = -1e-06: expected a number > 0"),
        ({"head_init_scale": float("inf")}, "expected a finite number"),
    ],
)
def test_arguments_that_no_network_has_are_refused(wrong: dict, expected: str) -> None:
    usual = {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16)}
    with pytest.raises(ConvNeXtV2Error, match=expected):
        ConvNeXtV2(**usual | wrong)


def test_unknown_name_lists_the_sizes() -> None:
    with pytest.raises(ConvNeXtV2Error, match="convnextv2_huge"):
        create_model("convnextv2_mega")
