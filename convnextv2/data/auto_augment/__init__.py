"""Automatic augmentation of uint8 pixels by policies such as randaug-m9-mstd0.5-inc1."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convnextv2.data.auto_augment.grammar import parse
from convnextv2.data.auto_augment.operations import OPERATIONS, Canvas
from convnextv2.data.auto_augment.policies import (
    AUGMIX,
    RANDAUG_WEIGHTS,
    TRIVIALAUGMENT,
    AugMix,
    AutoAugment,
    Policy,
    RandAugment,
    ThreeAugment,
    TrivialAugmentWide,
)
from convnextv2.errors import RecipeError
from convnextv2.recipe.channels import COLOUR_POLICIES, is_colour


@dataclass(frozen=True)
class PolicyTransform:
    """Applies a policy, which works on Pillow images, to tensors of one or three channels.

    Args:
        policy: The policy.
    """

    policy: Policy

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment an image.

        Args:
            pixels: uint8 (C, H, W), with one or three channels.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            uint8 (C, H, W).
        """
        grey = len(pixels) == 1
        bands = [Image.fromarray(band) for band in pixels.contiguous().numpy()]
        image = bands[0] if grey else Image.merge("RGB", bands)
        changed = torch.from_numpy(np.array(self.policy(image, generator)))
        return changed[None] if grey else changed.permute(2, 0, 1)


@dataclass(frozen=True)
class ChannelwiseTransform:
    """Applies the same operations with the same strengths to each channel as a grey image.

    Args:
        transforms: One transform for each channel. They differ only in their fill value.
    """

    transforms: tuple[PolicyTransform, ...]

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment an image.

        Args:
            pixels: uint8 (C, H, W), with as many channels as there are transforms.
            generator: A generator on the CPU. The random choices are the same for all channels.

        Returns:
            uint8 (C, H, W).
        """
        before = generator.get_state()
        changed = []
        for transform, band in zip(self.transforms, pixels, strict=True):
            # The choices do not depend on the pixels, so all channels get the same choices.
            generator.set_state(before)
            changed.append(transform(band[None], generator))
        return torch.cat(changed)


_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    # Pillow's affine transform supports only these three filters.
    **dict.fromkeys(("bicubic", "lanczos", "area"), Image.Resampling.BICUBIC),
}


def build_policy(
    text: str, *, fill: tuple[int, ...], interpolation: str = "bicubic"
) -> PolicyTransform | ChannelwiseTransform:
    """Build the transform for the text of a policy; see `grammar.POLICIES`.

    Args:
        text: The policy, such as randaug-m9-mstd0.5-inc1.
        fill: The level of each channel, 0 to 255, for pixels from outside the image. If the number
            of channels is neither one nor three, each channel is augmented as a grey image, without
            the operation Color.
        interpolation: The interpolation of shear, rotation and translation.

    Raises:
        RecipeError: A part of the text is wrong, or asks for more operations than there are. The
            message names the part.
    """
    resample = _RESAMPLING[interpolation]
    if is_colour(len(fill)):
        return PolicyTransform(_policy(text, Canvas(fill, resample), OPERATIONS.keys()))
    without_colour = OPERATIONS.keys() - {"Color"}
    return ChannelwiseTransform(
        tuple(
            PolicyTransform(_policy(text, Canvas((level,), resample), without_colour))
            for level in fill
        )
    )


def _policy(text: str, canvas: Canvas, usable: Set[str]) -> Policy:
    """Build the policy of a text from the usable operations."""
    name, numbers = parse(text)
    assert "Color" in usable or name not in COLOUR_POLICIES, "the recipe checks that"
    policy: Policy
    match name:
        case "randaug" | "rand":
            weights = {
                operation: weight
                for operation, weight in RANDAUG_WEIGHTS.items()
                if operation in usable
            }
            available = sum(weight > 0 for weight in weights.values())
            if numbers["w"] == 0 and numbers["n"] > available:
                raise RecipeError(
                    f"auto_augment = {text!r}: 'n{numbers['n']:g}' of {available} operations. Use "
                    f"n{available}."
                )
            policy = RandAugment(
                canvas,
                weights=weights,
                magnitude=numbers["m"],
                layers=int(numbers["n"]),
                std=numbers["mstd"],
                max_magnitude=numbers["mmax"],
                increasing=numbers["inc"] == 1,
                weighted=numbers["w"] == 0,
            )
        case "autoaug" | "autoaugr":
            policy = AutoAugment(
                canvas, std=numbers["mstd"], increasing_posterize=name == "autoaugr"
            )
        case "3a":
            policy = ThreeAugment(canvas, std=numbers["mstd"])
        case "augmix":
            policy = AugMix(
                canvas,
                names=tuple(operation for operation in AUGMIX if operation in usable),
                magnitude=numbers["m"],
                width=int(numbers["w"]),
                depth=int(numbers["d"]),
                alpha=numbers["a"],
            )
        case _:
            policy = TrivialAugmentWide(
                canvas,
                names=tuple(
                    operation for operation in TRIVIALAUGMENT if operation in {"Identity", *usable}
                ),
                bins=int(numbers["m"]),
            )
    return policy
