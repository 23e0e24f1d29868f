"""Automatic augmentation: a policy written as text, such as randaug-m9-mstd0.5-inc1, as a transform of uint8 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convnextv2.data.auto_augment.grammar import parse
from convnextv2.data.auto_augment.operations import Canvas
from convnextv2.data.auto_augment.policies import AugMix, AutoAugment, Policy, RandAugment, ThreeAugment, TrivialAugmentWide


@dataclass(frozen=True)
class PolicyTransform:
    """A policy, which acts on Pillow images, for tensors."""

    policy: Policy

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """pixels: uint8 (C, H, W), 1 or 3 channels. Returns the same shape; all choices are drawn from the generator."""
        grey = len(pixels) == 1
        bands = [Image.fromarray(band) for band in pixels.contiguous().numpy()]
        image = bands[0] if grey else Image.merge("RGB", bands)
        changed = torch.from_numpy(np.array(self.policy(image, generator)))
        return changed[None] if grey else changed.permute(2, 0, 1)


_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    # Pillow's affine transform knows no more than these three.
    **dict.fromkeys(("bicubic", "lanczos", "area"), Image.Resampling.BICUBIC),
}


def build_policy(text: str, *, fill: tuple[int, ...], interpolation: str = "bicubic") -> PolicyTransform:
    """The policy that the text describes (`grammar.POLICIES`). fill: 0..255 per channel, for what comes in from outside.

    interpolation: of shear, rotation and translation. Raises RecipeError naming the part of the text that is wrong."""
    name, numbers = parse(text)
    canvas = Canvas(fill, _RESAMPLING[interpolation])
    policy: Policy
    match name:
        case "randaug" | "rand":
            policy = RandAugment(
                canvas,
                magnitude=numbers["m"],
                layers=int(numbers["n"]),
                std=numbers["mstd"],
                most=numbers["mmax"],
                increasing=numbers["inc"] == 1,
                weighted=numbers["w"] == 0,
            )
        case "autoaug" | "autoaugr":
            policy = AutoAugment(canvas, std=numbers["mstd"], increasing_posterize=name == "autoaugr")
        case "3a":
            policy = ThreeAugment(canvas, std=numbers["mstd"])
        case "augmix":
            policy = AugMix(canvas, magnitude=numbers["m"], width=int(numbers["w"]), depth=int(numbers["d"]), alpha=numbers["a"])
        case _:
            policy = TrivialAugmentWide(canvas, bins=int(numbers["m"]))
    return PolicyTransform(policy)
