"""Transforms of images with label maps, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.decode import Picture
from convnextv2.data.dense.distortion import draw_distortion
from convnextv2.data.dense.geometry import Placement, draw_placement, fitted, size_of
from convnextv2.data.dense.label_maps import IGNORED
from convnextv2.data.dense.source import Sample
from convnextv2.data.resize import resize
from convnextv2.data.shared_memory import stack
from convnextv2.errors import DataError
from convnextv2.preprocessing import Interpolation, Preprocessing
from convnextv2.recipe.knobs import Recipe

_TRIES = 10
"""How often a crop is drawn again at most if one class fills too much of it."""


@dataclass(frozen=True)
class MapTrainTransform:
    """Random scale, crop and flip of an image with its label map, and changes of its colours.

    Args:
        image_size: Height and width of the result, in pixels.
        factor: The minimum and maximum of the random factor on the size at which the image covers
            the crop.
        fill: The level of each channel in the padding.
        hflip: The probability of a horizontal flip.
        max_class_share: If one class fills more than this share of the crop, the crop is drawn
            again, up to ten times. 1 accepts all crops.
        photometric: The probability of each change of colours; see `draw_distortion`.
        interpolation: The interpolation of the resize.
        antialias: Whether the resize averages over the source pixels.
    """

    image_size: tuple[int, int]
    factor: tuple[float, float] = (0.5, 2.0)
    fill: tuple[int, ...] = (124, 116, 104)
    hflip: float = 0.5
    max_class_share: float = 0.75
    photometric: float = 0.0
    interpolation: Interpolation = "bicubic"
    antialias: bool = True

    def __call__(
        self, image: Tensor | Picture, labels: Tensor, generator: torch.Generator
    ) -> Sample:
        """Prepare one image and its map.

        Args:
            image: uint8 (C, H, W) of any size, or a file that holds one.
            labels: int16 (H, W), class indices or `IGNORED`.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            uint8 (C, *image_size) and int16 (*image_size).

        Raises:
            DataError: The map is not of the image's size.
        """
        size = size_of(image)
        check_size(size, labels)
        placement = draw_placement(
            size, self.image_size, factor=self.factor, fit="cover", hflip=self.hflip,
            generator=generator,
        )  # fmt: skip
        placement, cut = self._varied(placement, labels, generator)
        change = draw_distortion(self.photometric, generator) if self.photometric else None
        pixels = placement.place_image(
            image,
            fill=self.fill,
            interpolation=self.interpolation,
            antialias=self.antialias,
            change=change,
        )
        return Sample(pixels, cut)

    def _varied(
        self, placement: Placement, labels: Tensor, generator: torch.Generator
    ) -> tuple[Placement, Tensor]:
        """Draw the crop again while one class fills too much of it."""
        cut = placement.place_map(labels, IGNORED)
        if self.max_class_share >= 1:
            return placement, cut
        for _ in range(_TRIES):
            counts = torch.bincount(cut[cut >= 0].long())
            # As in MMSegmentation, the crop must also have a second class.
            if (counts > 0).sum() > 1 and counts.max() < self.max_class_share * counts.sum():
                break
            placement = placement.at_another_place(generator)
            cut = placement.place_map(labels, IGNORED)
        return placement, cut


@dataclass(frozen=True)
class MapEvalTransform:
    """The preprocessing of whole images for evaluation: resized, never cropped.

    Args:
        preprocessing: The resized image covers its `image_size`. Its crop has no effect.
    """

    preprocessing: Preprocessing

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the resized image covers, in pixels."""
        return self.preprocessing.image_size

    def __call__(self, pixels: Tensor, labels: Tensor) -> Sample:
        """Prepare one image. Its label map is not changed.

        Args:
            pixels: uint8 (C, H, W) of any size.
            labels: int16 (H, W).

        Raises:
            DataError: The map is not of the image's size.
        """
        check_size(size_of(pixels), labels)
        return Sample(whole_image(pixels, self.preprocessing), labels)


def whole_image(pixels: Tensor, how: Preprocessing, factor: float = 1.0) -> Tensor:
    """Resize an image so that it covers the image size of a preprocessing, without a crop.

    Args:
        pixels: uint8 (C, H, W).
        how: The preprocessing.
        factor: A further factor on the size.

    Returns:
        uint8 (C, h, w).
    """
    size = fitted((pixels.shape[-2], pixels.shape[-1]), how.image_size, "cover", factor)
    return resize(pixels, size, how.interpolation, antialias=how.averages)


def check_size(size: tuple[int, int], labels: Tensor) -> None:
    """Check that a label map has the size of its image.

    Raises:
        DataError: The map has another size.
    """
    if tuple(labels.shape) != size:
        raise DataError(
            f"the image is {size[1]} x {size[0]} px, but its label map is "
            f"{labels.shape[1]} x {labels.shape[0]} px. Give both the same size."
        )


def collate_maps(maps: Sequence[Tensor]) -> Tensor:
    """Stack label maps of the same size to int16 (N, H, W)."""
    return stack(maps) if maps else torch.empty(0, 0, 0, dtype=torch.int16)


def build_map_train_transform(recipe: Recipe) -> MapTrainTransform:
    """Build the recipe's augmentation of images with label maps."""
    preprocessing = build_preprocessing(recipe)
    return MapTrainTransform(
        preprocessing.image_size,
        factor=recipe.scale_jitter,
        fill=tuple(round(255 * value) for value in preprocessing.mean),
        hflip=recipe.hflip,
        max_class_share=recipe.max_class_share,
        photometric=recipe.photometric,
        interpolation=recipe.interpolation,
        antialias=preprocessing.averages,
    )
