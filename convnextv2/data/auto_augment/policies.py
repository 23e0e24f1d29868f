"""The policies, which choose operations and their strengths for each image.

All random choices are drawn from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from convnextv2.data.auto_augment.operations import OPERATIONS, Canvas
from convnextv2.data.randomness import dirichlet, happens, integer, normal, uniform

FULL = 10.0
"""The magnitude at which an operation reaches the end of its range."""

SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
ENHANCERS = {"Color", "Contrast", "Brightness", "Sharpness"}

RANDAUG_WEIGHTS = {
    "AutoContrast": 0.025,
    "Equalize": 0.005,
    "Invert": 0.0,
    "Rotate": 0.3,
    "Posterize": 0.0,
    "Solarize": 0.005,
    "SolarizeAdd": 0.005,
    "Color": 0.025,
    "Contrast": 0.005,
    "Brightness": 0.005,
    "Sharpness": 0.025,
    "ShearX": 0.2,
    "ShearY": 0.2,
    "TranslateX": 0.1,
    "TranslateY": 0.1,
}
"""The operations of RandAugment, and their probabilities if the choice is weighted."""

AUGMIX = tuple(name for name in RANDAUG_WEIGHTS if name not in ("Invert", "SolarizeAdd"))

TRIVIALAUGMENT = ("Identity", *AUGMIX)

AUTOAUGMENT = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)
"""AutoAugment's policy for ImageNet (Cubuk et al. 2019, table 9).

Each of the 25 pairs has two operations as (operation, probability, magnitude).
"""

Pixels = Image.Image


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020). Each operation is applied with probability 1/2, as in timm.

    Args:
        canvas: The settings of geometric operations.
        weights: The operations, and their probabilities if the choice is weighted.
        magnitude: The mean magnitude, where 10 is the end of an operation's range.
        layers: The number of operations for an image.
        std: The magnitude's standard deviation. Above 100, it is uniform from 0 to `magnitude`.
        max_magnitude: The upper bound of the magnitude.
        increasing: See `strength`.
        weighted: Whether operations are chosen by the weights and without replacement. Otherwise
            all operations are equally likely, and one may be chosen several times.
    """

    canvas: Canvas
    weights: Mapping[str, float] = field(default_factory=lambda: RANDAUG_WEIGHTS)
    magnitude: float = 10.0
    layers: int = 2
    std: float = 0.5
    max_magnitude: float = 10.0
    increasing: bool = False
    weighted: bool = False

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Augment an image.

        Args:
            image: The image, in mode L or RGB.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            An image of the same size and mode.
        """
        names = list(self.weights)
        weights = torch.tensor(list(self.weights.values()) if self.weighted else [1.0] * len(names))
        for i in torch.multinomial(
            weights, self.layers, replacement=not self.weighted, generator=generator
        ).tolist():
            if happens(generator, 0.5):
                level = draw_magnitude(self.magnitude, self.std, self.max_magnitude, generator)
                value = strength(names[i], level, image, generator, increasing=self.increasing)
                image = OPERATIONS[names[i]](image, value, self.canvas)
        return image


@dataclass(frozen=True)
class AutoAugment:
    """AutoAugment (Cubuk et al. 2019): a random one of 25 pairs of operations.

    Args:
        canvas: The settings of geometric operations.
        std: The magnitude's standard deviation.
        increasing_posterize: Whether a higher magnitude keeps fewer bits (4 to 1), instead of more
            (4 to 8).
    """

    canvas: Canvas
    std: float = 0.5
    increasing_posterize: bool = False

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Augment an image.

        Args:
            image: The image, in mode L or RGB.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            An image of the same size and mode.
        """
        for name, probability, magnitude in AUTOAUGMENT[integer(generator, 0, len(AUTOAUGMENT))]:
            if happens(generator, probability):
                level = draw_magnitude(magnitude, self.std, FULL, generator)
                if name == "Posterize" and not self.increasing_posterize:
                    value: float = 4 + int(4 * level / FULL)
                else:
                    value = strength(name, level, image, generator, increasing=name == "Posterize")
                image = OPERATIONS[name](image, value, self.canvas)
        return image


@dataclass(frozen=True)
class ThreeAugment:
    """3-Augment (Touvron et al. 2022): grey, solarized or blurred, with the strengths of timm.

    Args:
        canvas: The settings of geometric operations.
        std: The magnitude's standard deviation.
    """

    canvas: Canvas
    std: float = 0.5

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Augment an image.

        Args:
            image: The image, in mode L or RGB.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            An image of the same size and mode.
        """
        name, magnitude = (("Solarize", 5), ("Color", 10), ("GaussianBlur", 10))[
            integer(generator, 0, 3)
        ]
        level = draw_magnitude(magnitude, self.std, FULL, generator)
        if name == "Solarize":
            value = strength(name, level, image, generator)
        elif name == "Color":
            value = 1 - level / FULL
        else:
            value = uniform(generator, 0.1, 0.1 + 1.9 * level / FULL)
        return OPERATIONS[name](image, value, self.canvas)


@dataclass(frozen=True)
class AugMix:
    """AugMix (Hendrycks et al. 2020): the image blended with a mixture of chains of operations.

    Args:
        canvas: The settings of geometric operations.
        names: The operations.
        magnitude: The largest magnitude. Magnitudes are uniform from 0 to it.
        width: The number of chains.
        depth: The number of operations in a chain, or -1 for 1 to 3.
        alpha: The parameter of the chains' Dirichlet weights and of the mixture's Beta weight.
    """

    canvas: Canvas
    names: tuple[str, ...] = AUGMIX
    magnitude: float = 3.0
    width: int = 3
    depth: int = -1
    alpha: float = 1.0

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Augment an image.

        Args:
            image: The image, in mode L or RGB.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            An image of the same size and mode.
        """
        mixture = np.zeros_like(image, dtype=np.float32)
        for weight in dirichlet(generator, *[self.alpha] * self.width):
            changed = image
            for _ in range(self.depth if self.depth > 0 else integer(generator, 1, 4)):
                name = self.names[integer(generator, 0, len(self.names))]
                value = strength(
                    name, uniform(generator, 0, self.magnitude), image, generator, increasing=True
                )
                changed = OPERATIONS[name](changed, value, self.canvas)
            mixture += weight * np.asarray(changed, dtype=np.float32)
        mixed = Image.fromarray(mixture.round().clip(0, 255).astype(np.uint8))
        return Image.blend(image, mixed, dirichlet(generator, self.alpha, self.alpha)[0])


@dataclass(frozen=True)
class TrivialAugmentWide:
    """TrivialAugmentWide (Mueller and Hutter 2021): one operation at a random strength.

    Args:
        canvas: The settings of geometric operations.
        names: The operations.
        bins: The number of strengths, which are evenly spaced.
    """

    canvas: Canvas
    names: tuple[str, ...] = TRIVIALAUGMENT
    bins: int = 31

    def __call__(self, image: Pixels, generator: torch.Generator) -> Pixels:
        """Augment an image.

        Args:
            image: The image, in mode L or RGB.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            An image of the same size and mode.
        """
        name = self.names[integer(generator, 0, len(self.names))]
        share = integer(generator, 0, self.bins) / (self.bins - 1)
        sign = 1 if happens(generator, 0.5) else -1
        if name == "Identity":
            return image
        if name in ENHANCERS:
            value = 1 + sign * 0.99 * share
        elif name == "Posterize":
            value = 8 - round(6 * share)
        elif name == "Solarize":
            value = 255 * (1 - share)
        else:
            full = {
                "Rotate": 135.0,
                "ShearX": 0.99,
                "ShearY": 0.99,
                "TranslateX": 32.0,
                "TranslateY": 32.0,
            }.get(name, 0.0)
            value = sign * full * share
        return OPERATIONS[name](image, value, self.canvas)


Policy = RandAugment | AutoAugment | ThreeAugment | AugMix | TrivialAugmentWide


def draw_magnitude(
    magnitude: float, std: float, max_magnitude: float, generator: torch.Generator
) -> float:
    """Draw a random magnitude.

    Args:
        magnitude: The mean.
        std: The standard deviation. Above 100, the magnitude is uniform from 0 to `magnitude`.
        max_magnitude: The upper bound.
        generator: A generator on the CPU. If `std` is 0, nothing is drawn from it.

    Returns:
        A number from 0 to `max_magnitude`.
    """
    drawn = (
        uniform(generator, 0, magnitude)
        if std > 100
        else normal(generator, magnitude, std)
        if std
        else magnitude
    )
    return max(0.0, min(drawn, max_magnitude))


def strength(
    name: str, level: float, image: Pixels, generator: torch.Generator, *, increasing: bool = False
) -> float:
    """Convert a magnitude into the strength of an operation, with the ranges of timm.

    Args:
        name: The operation.
        level: The magnitude, where 10 is the end of the range.
        image: The image. Translations are relative to its width or height.
        generator: A generator on the CPU. The sign is drawn from it if the operation has one.
        increasing: Whether a higher magnitude always means a larger change. If so, the factor of
            the enhancers is 1 plus or minus a share, instead of 0.1 to 1.9; and Posterize and
            Solarize change more at a higher magnitude, instead of less.

    Returns:
        A value for `OPERATIONS`.
    """
    share = level / FULL
    if name in SIGNED or (name in ENHANCERS and increasing):
        share = share if happens(generator, 0.5) else -share
    if name == "Rotate":
        return 30 * share
    if name in ("ShearX", "ShearY"):
        return 0.3 * share
    if name in ("TranslateX", "TranslateY"):
        return 0.45 * share * image.size[name == "TranslateY"]
    if name in ENHANCERS:
        return max(0.1, 1 + 0.9 * share) if increasing else 0.1 + 1.8 * share
    if name == "Posterize":
        return 4 - int(4 * share) if increasing else int(4 * share)
    if name == "Solarize":
        return 256 - min(256, int(256 * share)) if increasing else min(256, int(256 * share))
    if name == "SolarizeAdd":
        return min(128, int(110 * share))
    return 0.0
