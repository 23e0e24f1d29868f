"""Augmentation of normalised batches: mixup, cutmix and random erasing.

Sources: Zhang et al. 2018 (mixup), Yun et al. 2019 (cutmix), Zhong et al. 2020 (random erasing).
All random choices are drawn from a generator on the CPU, so they do not depend on the device. Only
the noise of random erasing is drawn on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from convnextv2.data.randomness import dirichlet, happens, integer, log_uniform, uniform
from convnextv2.data.soft_targets import soft_targets


@dataclass(frozen=True)
class Mixing:
    """Mixup and cutmix: mix image i of a batch of N with image N - 1 - i, with one share for all.

    Args:
        mixup: The alpha of mixup's Beta(alpha, alpha); 0 to disable mixup.
        cutmix: The alpha of cutmix's Beta(alpha, alpha); 0 to disable cutmix.
        prob: The probability that a batch is mixed.
        switch_prob: The probability of cutmix, if both are enabled.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5

    @property
    def is_on(self) -> bool:
        """True if batches are mixed."""
        return self.mixup + self.cutmix > 0 and self.prob > 0

    def __call__(
        self, images: Tensor, targets: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix one batch. Label smoothing is part of the loss.

        Args:
            images: Floats (N, C, H, W).
            targets: int64 (N,), or (N, num_classes) if images may have several labels.
            num_classes: The number of classes.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            Mixed images (N, C, H, W), and soft targets (N, num_classes); see `soft_targets`. If
            each image has one class, the soft targets of an image sum to 1.
        """
        soft = soft_targets(targets, num_classes, images.dtype)
        if not happens(generator, self.prob):
            return images, soft
        use_cutmix = self.cutmix > 0 and (self.mixup == 0 or happens(generator, self.switch_prob))
        alpha = self.cutmix if use_cutmix else self.mixup
        kept = dirichlet(generator, alpha, alpha)[0]
        if use_cutmix:
            height, width = images.shape[-2:]
            rows, columns = cut_box(height, width, 1 - kept, generator)
            mixed = images.clone()
            mixed[..., rows, columns] = images.flip(0)[..., rows, columns]
            # The box may have been clipped at the edges, so its actual area is used.
            kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        else:
            mixed = images.lerp(images.flip(0), 1 - kept)
        return mixed, soft.lerp(soft.flip(0), 1 - kept)


def cut_box(
    height: int, width: int, area: float, generator: torch.Generator
) -> tuple[slice, slice]:
    """Draw a random box with the aspect ratio of the image, and clip it at the edges.

    Args:
        height: The height of the image, in pixels.
        width: The width of the image, in pixels.
        area: The share of the image's area that the box covers before it is clipped.
        generator: A generator on the CPU, from which the centre of the box is drawn.

    Returns:
        The rows and the columns of the box.
    """
    box_height, box_width = int(height * math.sqrt(area)), int(width * math.sqrt(area))
    row, column = integer(generator, 0, height), integer(generator, 0, width)
    return (
        slice(max(0, row - box_height // 2), min(height, row + box_height // 2)),
        slice(max(0, column - box_width // 2), min(width, column + box_width // 2)),
    )


@dataclass(frozen=True)
class Erasing:
    """Random erasing: fill a random rectangle in some images.

    Args:
        prob: The probability for each image.
        scale: The minimum and maximum share of the area.
        ratio: The minimum and maximum of height / width.
        value: "random" for noise from N(0, 1), drawn for each pixel and channel; or the normalised
            value to fill with, one for all channels or one for each.
        attempts: The number of tries to find a rectangle that fits. If none fits, the image is not
            changed.
    """

    prob: float = 0.0
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: Literal["random"] | float | tuple[float, ...] = "random"
    attempts: int = 10

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Erase rectangles in place.

        Args:
            images: Floats (N, C, H, W), which are changed.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            The same tensor.
        """
        if self.prob == 0:
            return images
        noise = torch.Generator(images.device).manual_seed(integer(generator, 0, 2**63 - 1))
        for image in images:
            box = (
                self._box(image.shape[-2], image.shape[-1], generator)
                if happens(generator, self.prob)
                else None
            )
            if box is None:
                continue
            erased = image[:, box[0], box[1]]
            if isinstance(self.value, str):
                # Noise is drawn as float32 for every dtype, since the draws depend on the dtype.
                erased.copy_(torch.randn(erased.shape, generator=noise, device=images.device))
            elif isinstance(self.value, tuple):
                # A tensor of these values would have to be copied to the accelerator, which waits
                # for the copy.
                levels = self.value * (len(erased) if len(self.value) == 1 else 1)
                for channel, level in zip(erased, levels, strict=True):
                    channel.fill_(level)
            else:
                erased.fill_(self.value)
        return images

    def _box(
        self, height: int, width: int, generator: torch.Generator
    ) -> tuple[slice, slice] | None:
        for _ in range(self.attempts):
            area = height * width * uniform(generator, *self.scale)
            ratio = log_uniform(generator, *self.ratio)
            box_height, box_width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_height < height and 0 < box_width < width:
                top, left = (
                    integer(generator, 0, height - box_height + 1),
                    integer(generator, 0, width - box_width + 1),
                )
                return slice(top, top + box_height), slice(left, left + box_width)
        return None
