"""Compare ConvNeXts of the first version with the V2 that they are read as, at their real sizes.

    python benchmarks/first_versions.py [--only tiny]

Every parameter is random, layer scales of both signs included. Both networks run in float64 on two
images of 64 x 64 pixels. The table says by how much the logits differ, or the pooled features of a
network without a classifier, and by how much after the way back where there is one. It needs timm,
torchvision and transformers, and 10 GB of memory for the largest. timm's convnext_xxlarge would
need 25 GB; the tests compare a narrow one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)

from convnextv2.model.convnext import SIZES
from convnextv2.weights.build import build_model
from convnextv2.weights.convert import foreign_tensors
from convnextv2.weights.opened import open_weights

TIMM = "atto femto pico nano tiny small base large xlarge large_mlp".split()
OTHERS = "tiny small base large".split()


def cases() -> Iterator[tuple[str, str, Callable[[], nn.Module]]]:
    """Yield a title, the format to go back to (empty for none) and how to build the network."""
    for size in TIMM:
        back = "" if size == "large_mlp" else "timm-v1"
        yield f"timm convnext_{size}", back, lambda name=size: timm.create_model(f"convnext_{name}")
    for size in OTHERS:
        build = getattr(torchvision.models, f"convnext_{size}")
        yield f"torchvision convnext_{size}", "torchvision-v1", build
    for size in OTHERS:
        depths, dims = map(list, SIZES[f"convnextv2_{size}"])
        config = ConvNextConfig(
            hidden_sizes=dims, depths=depths, num_labels=1000, layer_norm_eps=1e-6
        )
        yield (
            f"transformers convnext {size}",
            "transformers-v1",
            lambda config=config: ConvNextForImageClassification(config),
        )
        dino = DINOv3ConvNextConfig(hidden_sizes=dims, depths=depths)
        yield (
            f"transformers dinov3_convnext {size}",
            "dinov3-v1",
            lambda dino=dino: DINOv3ConvNextModel(dino),
        )


def randomise(model: nn.Module) -> nn.Module:
    """Fill every parameter with random numbers that keep the activations in range."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.double().named_parameters():
            deviation = 0.02 if parameter.dim() > 1 and parameter.numel() > 5000 else 0.3
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            is_scale = name.endswith(("norm.weight", "layernorm.weight"))
            parameter.copy_(deviation * noise + (1 if is_scale else 0))
    return model.eval()


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits, or the pooled features of a network without a classifier."""
    with torch.inference_mode():
        if hasattr(model, "head") and hasattr(model.head, "pre_logits"):
            hidden = isinstance(model.head.pre_logits, nn.Sequential) and len(model.head.pre_logits)
            if hidden:  # the head is left out, so the features before it are compared
                features = model.forward_features(images)
                return model.head.norm(model.head.global_pool(features)).flatten(1)
        found = model(images)
    for name in ("logits", "pooler_output"):
        if hasattr(found, name):
            return getattr(found, name)
    return found


def compare(theirs: nn.Module, back: str, folder: Path) -> tuple[float, float | None, float]:
    """Return both differences and the largest output."""
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    config = theirs.config.to_dict() if hasattr(theirs, "config") else {}
    (folder / "config.json").write_text(json.dumps(config))
    weights = open_weights(folder if config else folder / "pytorch_model.bin")
    ours = build_model(weights.description).double().eval()
    ours.load_state_dict(weights.tensors)
    expected = outputs(theirs, images)
    forth = float((outputs(ours, images) - expected).abs().max())
    if not back:
        return forth, None, float(expected.abs().max())
    theirs.load_state_dict(foreign_tensors(ours, back, weights.description.model))
    again = float((outputs(theirs, images) - expected).abs().max())
    return forth, again, float(expected.abs().max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose title has this in it")
    only = parser.parse_args().only
    print("| network | difference | and back | largest output |\n|---|--:|--:|--:|")
    for title, back, build in cases():
        if only not in title:
            continue
        with tempfile.TemporaryDirectory() as folder:
            forth, again, largest = compare(randomise(build()), back, Path(folder))
        told = "not possible" if again is None else f"{again:.1e}"
        print(f"| {title} | {forth:.1e} | {told} | {largest:.2g} |", flush=True)


if __name__ == "__main__":
    main()
