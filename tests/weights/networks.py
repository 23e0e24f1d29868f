"""Small networks for the tests of weights."""

from pathlib import Path

import torch
from torch import Tensor

from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.safetensors import save_weights

DEPTHS, DIMS = (1, 2, 2, 1), (8, 16, 24, 32)
"""The size of `random_model`."""
IMAGES = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
IN_TIMM = [size for size in SIZES if size != "convnextv2_xlarge"]
"""The sizes of ConvNeXt V2 that timm has."""


def network(**arguments) -> ConvNeXtV2:
    """A network of four blocks whose parameters are all random."""
    model = ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def describe(model: ConvNeXtV2, **more) -> Description:
    """The description of a classifier."""
    return Description(kind="classifier", model="custom", arguments=model.arguments, **more)


def random_model(**arguments) -> ConvNeXtV2:
    """A network of six blocks whose parameters are all random: zeros in GRN would hide a swap."""
    torch.manual_seed(5)
    model = ConvNeXtV2(DEPTHS, DIMS, **{"num_classes": 5} | arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save(model: ConvNeXtV2, folder: Path, name: str = "custom", **more) -> Weights:
    """Write a weights file of this package, and open it.

    The file may bear the name of a size whose depths and widths are larger than the model's.
    """
    preprocessing = {
        "image_size": [224, 224],
        "channels": model.in_channels,
        "eval_preset": "timm",
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    save_weights(
        folder,
        model.state_dict(),
        Description("classifier", name, model.arguments, preprocessing=preprocessing, **more),
    )
    return open_weights(folder / "model.safetensors")


def logits(model: torch.nn.Module, images: Tensor = IMAGES) -> Tensor:
    """Return the outputs of a model in float64."""
    with torch.inference_mode():
        return model.double()(images)


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference between two tensors."""
    return float((a - b).abs().max())
