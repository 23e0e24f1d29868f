"""Transforms that turn decoded images into inputs of the network.

`TrainTransform` and `EvalTransform` run in workers, image by image, on uint8 pixels.
`BatchTransform` runs in the main process, batch by batch, on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from convnextv2.data.decode import Picture
from convnextv2.data.mixup import Erasing, Mixing
from convnextv2.data.randomness import happens, integer, log_uniform, uniform
from convnextv2.data.resize import resize
from convnextv2.kernels import pixels as native
from convnextv2.preprocessing import Interpolation, Preprocessing
from convnextv2.recipe.channels import is_colour


@dataclass(frozen=True)
class TrainTransform:
    """A random resized crop, flips, and then `augment` or colour jitter.

    Args:
        image_size: Height and width of the result, in pixels.
        scale: The minimum and maximum share of the area that the crop keeps.
        ratio: The minimum and maximum aspect ratio (width / height) of the crop.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        jitter: Strength of the changes of brightness, contrast, saturation and hue.
        augment: Maps (uint8 (C, H, W), generator) to pixels of the same shape. It replaces jitter.
        interpolation: The interpolation of the resize.
        antialias: Whether the resize averages over the source pixels.
        splits: The number of versions of the same crop to return, or 0 for a single image. The
            first version is unchanged, and the others are augmented independently.
        padding: If it is not 0, the image is not cropped. It is padded with this many black pixels
            on all sides and cut back to its size at a random place, as is usual for CIFAR.
    """

    image_size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    splits: int = 0
    padding: int = 0

    def __post_init__(self) -> None:
        """Import what `color_jitter` needs, once, before workers are forked."""
        if any(self.jitter) and self.augment is None:
            import torchvision.transforms.v2.functional  # noqa: F401

    def __call__(self, image: Tensor | Picture, generator: torch.Generator) -> Tensor:
        """Prepare one image.

        Args:
            image: uint8 (C, H, W) of any size, or a file that holds one.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            uint8 (C, *image_size), or (splits, C, *image_size).
        """
        pixels = self._shift(image, generator) if self.padding else self._crop(image, generator)
        pixels = resize(pixels, self.image_size, self.interpolation, antialias=self.antialias)
        if happens(generator, self.hflip):
            pixels = pixels.flip(-1)
        if happens(generator, self.vflip):
            pixels = pixels.flip(-2)
        if self.splits and self.augment:
            return torch.stack(
                [pixels, *(self.augment(pixels, generator) for _ in range(self.splits - 1))]
            )
        return (
            self.augment(pixels, generator)
            if self.augment
            else color_jitter(pixels, self.jitter, generator)
        )

    def _crop(self, image: Tensor | Picture, generator: torch.Generator) -> Tensor:
        full = (
            (image.height, image.width)
            if isinstance(image, Picture)
            else (image.shape[-2], image.shape[-1])
        )
        box = crop_box(full[0], full[1], self.scale, self.ratio, generator)
        reduction = self._reduction(*box[2:])
        pixels = image.decode(reduction) if isinstance(image, Picture) else image
        # The box is rounded to multiples of `reduction` pixels, so that a reduced image is cropped
        # at the same place as a full one.
        unit = reduction if tuple(pixels.shape[-2:]) == full else 1
        top, left, height, width = (unit * round(px / reduction) for px in box)
        return pixels[:, top : top + height, left : left + width]

    def _shift(self, image: Tensor | Picture, generator: torch.Generator) -> Tensor:
        pixels = image.decode() if isinstance(image, Picture) else image
        padded = torch.nn.functional.pad(pixels, [self.padding] * 4)
        top, left = (integer(generator, 0, 2 * self.padding + 1) for _ in range(2))
        return padded[:, top : top + pixels.shape[-2], left : left + pixels.shape[-1]]

    def _reduction(self, height: int, width: int) -> int:
        """Return the factor by which a file may be reduced in decoding, for a crop of this size.

        The factor is a power of two at which the crop keeps at least 1.5 times image_size. The
        antialiased resize would average the lost pixels anyway. docs/how-to/preprocessing.md states
        how little the result differs.
        """
        if not self.antialias or self.interpolation == "nearest":
            return 1
        spare = min(height / self.image_size[0], width / self.image_size[1])
        return next((reduction for reduction in (8, 4, 2) if spare >= 1.5 * reduction), 1)


@dataclass(frozen=True)
class EvalTransform:
    """The preprocessing of an image for evaluation. It has no random choices.

    Args:
        preprocessing: The sizes, the crop and the interpolation.
    """

    preprocessing: Preprocessing

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.preprocessing.image_size

    def __call__(self, pixels: Tensor) -> Tensor:
        """Prepare one image. A small image is enlarged.

        Args:
            pixels: uint8 (C, H, W) of any size.

        Returns:
            uint8 (C, *image_size).
        """
        how = self.preprocessing
        if how.warps:
            return resize(pixels, how.image_size, how.interpolation, antialias=how.averages)
        rows, columns = how.kept(pixels.shape[-2], pixels.shape[-1])
        pixels = pixels[:, rows, columns]
        size = how.resized(pixels.shape[-2], pixels.shape[-1])
        top, left = how.corner(size)
        resized = resize(pixels, size, how.interpolation, antialias=how.averages)
        return resized[:, top : top + how.image_size[0], left : left + how.image_size[1]]


@dataclass(frozen=True)
class BatchTransform:
    """Turns batches of pixels into inputs of the network on their device: normalise, erase and mix.

    Args:
        mean: The mean of each channel, on a scale from 0 to 1.
        std: The standard deviation of each channel, on the same scale.
        num_classes: The number of classes. It is needed only if mixing is enabled.
        erasing: The random erasing.
        mixing: Mixup and cutmix.
        splits: The number of versions of each image in a batch. The clean ones come first, and are
            not erased.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int = 0
    erasing: Erasing = Erasing()
    mixing: Mixing = Mixing()
    splits: int = 0
    _moments: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 pixels (N, C, H, W) to float32 images of the same shape."""
        if pixels.device not in self._moments:
            # Kept for later batches, because each copy to an accelerator waits for its queue.
            levels = 255 * torch.tensor(
                [self.mean, self.std], dtype=torch.float32, device=pixels.device
            )
            mean, std = levels.unsqueeze(-1).unsqueeze(-1)
            self._moments[pixels.device] = mean, std
        mean, std = self._moments[pixels.device]
        channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        if pixels.device.type == "cpu" and channels_last and native.can_take_pixels():
            return native.normalise(pixels, mean, std)
        return pixels.float().sub_(mean).div_(std)

    def __call__(
        self, pixels: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Prepare one batch.

        Args:
            pixels: uint8 (N, C, H, W).
            targets: int64 (N,), or (N, num_classes) if images may have several labels.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            The images, float32 (N, C, H, W), and the targets. The targets are unchanged if mixing
            is disabled. Otherwise they are float32 (N, num_classes) in every batch.
        """
        images = self.normalise(pixels)
        self.erasing(images[len(images) // self.splits if self.splits else 0 :], generator)
        return (
            self.mixing(images, targets, self.num_classes, generator)
            if self.mixing.is_on
            else (images, targets)
        )


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[int, int, int, int]:
    """Draw a random crop by the rule of torchvision's RandomResizedCrop.

    If none of ten attempts fits, the crop is the largest central one with an allowed ratio.

    Args:
        height: The height of the image, in pixels.
        width: The width of the image, in pixels.
        scale: The minimum and maximum share of the area.
        ratio: The minimum and maximum aspect ratio (width / height).
        generator: A generator on the CPU.

    Returns:
        Top, left, height and width of the crop, in pixels.
    """
    for _ in range(10):
        area = height * width * uniform(generator, *scale)
        aspect = log_uniform(generator, *ratio)
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return (
                integer(generator, 0, height - crop_height + 1),
                integer(generator, 0, width - crop_width + 1),
                crop_height,
                crop_width,
            )
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_height = max(1, min(height, round(width / aspect)))
    crop_width = max(1, min(width, round(height * aspect)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def color_jitter(pixels: Tensor, strengths: Sequence[float], generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue at random, in random order.

    The first three are multiplied by a factor from 1 - strength to 1 + strength. Hue is shifted by
    at most its strength, where 1 is a full turn. If the number of channels is neither 1 nor 3, each
    channel is changed as a grey image, without saturation and hue.

    Source: `torchvision.transforms.ColorJitter`.

    Args:
        pixels: uint8 (C, H, W).
        strengths: The strengths of brightness, contrast, saturation and hue.
        generator: A generator on the CPU.
    """
    channels = len(pixels)
    if not is_colour(channels):
        assert not any(strengths[2:]), "the recipe checks that"
        pixels = pixels.unsqueeze(1)
    # Imported here, because the import takes 1.5 s and prediction does not need it.
    from torchvision.transforms.v2 import functional as F

    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for i in torch.randperm(4, generator=generator).tolist() if any(strengths) else ():
        middle = 0.0 if changes[i] is F.adjust_hue else 1.0
        amount = uniform(generator, middle - strengths[i], middle + strengths[i])
        if strengths[i]:
            pixels = changes[i](pixels, amount if changes[i] is F.adjust_hue else max(0.0, amount))
    return pixels if is_colour(channels) else pixels.squeeze(1)


def normaliser(how: Preprocessing) -> Callable[[Tensor], Tensor]:
    """Make the function that turns uint8 pixels (N, C, H, W) into float32 images of that shape."""
    return BatchTransform(how.mean, how.std).normalise
