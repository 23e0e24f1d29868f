"""The forms of the block: timm's networks, and the masked reference, give the same outputs."""

import pytest
import torch
from model.reference import masked_dense_encoder, randomise
from model.test_convnext import as_timm
from timm.models.convnext import ConvNeXt
from torch import nn

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2, create_model
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.tiles import Tiles

DEPTHS, DIMS = (1, 2, 1, 1), (8, 16, 24, 32)
IMAGES = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
FORMS = {  # arguments of timm's network; its create_model passes no None on
    "v1": {},
    "v2_without_grn": {"ls_init_value": None},
    "v2": {"ls_init_value": None, "use_grn": True},
}


def pair(block: str) -> tuple[ConvNeXtV2, nn.Module]:
    ours = randomise(ConvNeXtV2(DEPTHS, DIMS, num_classes=5, block=block).double())
    theirs = ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=5, **FORMS[block]).double()
    theirs.load_state_dict({as_timm(name): tensor for name, tensor in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("block", FORMS)
def test_each_form_computes_what_timm_does_with_its_gradients(block: str) -> None:
    ours, theirs = pair(block)
    found, expected = ours(IMAGES), theirs(IMAGES)
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    (found**2).sum().backward()
    (expected**2).sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        wanted = gradients[as_timm(name)]
        assert (parameter.grad - wanted).abs().max() <= 1e-9 * wanted.abs().max(), name


@pytest.mark.parametrize("block", FORMS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_each_form_computes_the_same_in_lower_precision(block: str, precision) -> None:
    model = randomise(ConvNeXtV2(DEPTHS, DIMS, num_classes=5, block=block).double(), scale=0.1)
    expected = model(IMAGES)
    model.float()
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        found = model(IMAGES.float())
    bound = {torch.float32: 1e-4, torch.bfloat16: 0.1}[precision]
    assert (found - expected).abs().max() <= bound * expected.abs().max()


def test_a_first_convnext_has_its_published_size_and_initial_scale() -> None:
    model = create_model("convnextv2_tiny", block="v1")
    assert sum(p.numel() for p in model.parameters()) == 28_589_128  # convnext_tiny of torchvision
    scales = [p for name, p in model.named_parameters() if name.endswith(".gamma")]
    assert len(scales) == 18 and all(bool((scale == 1e-6).all()) for scale in scales)
    without = create_model("convnextv2_tiny", block="v2_without_grn")
    assert not [name for name in without.state_dict() if "grn" in name or "gamma" in name]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConvNeXtV2Error, match="block = 'v3': expected one of v2, v2_without_grn"):
        create_model("convnextv2_atto", block="v3")


@pytest.mark.parametrize("block", ["v1", "v2_without_grn"])
def test_visible_tiles_equal_the_masked_reference_in_each_form(block: str) -> None:
    encoder = randomise(ConvNeXtV2(DEPTHS, DIMS, num_classes=None, block=block).double())
    grid = (2, 3)
    visible, _ = draw_masks(2, grid, 0.5, torch.Generator().manual_seed(1))
    # The reference has GRN, which is the identity at zero, and no layer scale: it is linear, so it
    # can stand in the layer before it.
    weights = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    for i, depth in enumerate(DEPTHS):
        for j in range(depth):
            own = f"stages.{i}.{j}."
            scale = weights.pop(f"{own}gamma", torch.ones(DIMS[i], dtype=torch.float64))
            weights[f"{own}pwconv2.weight"] *= scale[:, None]
            weights[f"{own}pwconv2.bias"] *= scale
            for name in ("gamma", "beta"):
                weights[f"{own}grn.{name}"] = torch.zeros(4 * DIMS[i], dtype=torch.float64)
    found = Tiles(visible, grid).canvas(1).paint(encoder.encode(IMAGES, Tiles(visible, grid)))
    expected = masked_dense_encoder(IMAGES, weights, DEPTHS, 4, visible, grid)
    assert (found.permute(0, 3, 1, 2) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("block", FORMS)
def test_the_decoder_has_the_blocks_of_the_encoder_and_both_learn(block: str) -> None:
    torch.manual_seed(0)
    model = FCMAE(ConvNeXtV2(DEPTHS, DIMS, num_classes=None, block=block), decoder_dim=16)
    has = {name.removeprefix("0.") for name, _ in model.decoder.named_parameters()}
    assert ("gamma" in has, "grn.gamma" in has) == (block == "v1", block == "v2")
    visible, masked = draw_masks(2, (2, 3), 0.5, torch.Generator().manual_seed(1))
    model(IMAGES.float(), visible, masked).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
