"""Augmentation of a normalised batch: mixup, cutmix and random erasing.

Sources: Zhang et al. 2018, Yun et al. 2019, Zhong et al. 2020. All choices are drawn from the CPU
generator that is passed in, so they do not depend on the device. Only noise is drawn on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from convnextv2.data.chance import dirichlet, happens, integer, log_uniform, uniform
from convnextv2.data.soft_targets import soft_targets


@dataclass(frozen=True)
class Mixing:
    """Mix each image of a batch with its mirror in the reversed batch, all by the same share.

    Args:
        mixup: Alpha of mixup's Beta(alpha, alpha); 0 for off.
        cutmix: Alpha of cutmix's; 0 for off.
        prob: The probability that a batch is mixed at all.
        switch_prob: The probability of cutmix if both are on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5

    @property
    def is_on(self) -> bool:
        """Whether any batch is mixed."""
        return self.mixup + self.cutmix > 0 and self.prob > 0

    def __call__(
        self, images: Tensor, targets: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix one batch. Labels are not smoothed here, but in the loss.

        Args:
            images: (N, C, H, W).
            targets: int64 (N,), or (N, num_classes) if images may have several labels.
            num_classes: K of the soft targets.
            generator: On the CPU; all choices are drawn from it.

        Returns:
            New images, and soft targets (N, num_classes); see `soft_targets`. Those of one class
            for each image sum to 1.
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
            # The box may reach over the edge: what counts is the area that it covers.
            kept = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        else:
            mixed = images.lerp(images.flip(0), 1 - kept)
        return mixed, soft.lerp(soft.flip(0), 1 - kept)


def cut_box(
    height: int, width: int, area: float, generator: torch.Generator
) -> tuple[slice, slice]:
    """Return rows and columns of a random box, cut off at the image's edges.

    The box has the shape of the image and a share of its area, and its centre lies anywhere.
    """
    box_height, box_width = int(height * math.sqrt(area)), int(width * math.sqrt(area))
    row, column = integer(generator, 0, height), integer(generator, 0, width)
    return (
        slice(max(0, row - box_height // 2), min(height, row + box_height // 2)),
        slice(max(0, column - box_width // 2), min(width, column + box_width // 2)),
    )


@dataclass(frozen=True)
class Erasing:
    """Erase a random rectangle of some images.

    Args:
        prob: The probability for each image.
        scale: The least and the largest share of the area.
        ratio: The least and the largest height / width.
        value: "random" for noise from N(0, 1) for each pixel and channel, or normalised values to
            fill with, one number or one for each channel.
        attempts: Tries to find a rectangle that fits. After them, the image stays whole.
    """

    prob: float = 0.0
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: Literal["random"] | float | tuple[float, ...] = "random"
    attempts: int = 10

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Erase in images, float (N, C, H, W), which are changed in place and returned."""
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
                # Noise is float32 whatever the images are: generators differ between dtypes.
                erased.copy_(torch.randn(erased.shape, generator=noise, device=images.device))
            elif isinstance(self.value, tuple):
                # Tensors of these values would be copied to an accelerator, which waits for it.
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
