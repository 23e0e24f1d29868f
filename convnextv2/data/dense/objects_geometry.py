"""Transforms of images with objects, for training and for evaluation.

Polygons are mapped to the canvas and rasterised there, which is more exact than resizing masks.
Run-length codes are decoded one at a time and cropped to their boxes, so that full masks of all
objects are never in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.decode import Picture
from convnextv2.data.dense.distortion import draw_distortion
from convnextv2.data.dense.geometry import Placement, draw_placement, fitted, size_of
from convnextv2.data.dense.objects import Objects
from convnextv2.data.dense.rle import Region, Rle, box_of, decode, from_polygons
from convnextv2.data.dense.source import Sample
from convnextv2.data.resize import resize
from convnextv2.errors import DataError
from convnextv2.preprocessing import Interpolation, Preprocessing
from convnextv2.recipe.knobs import Recipe

MIN_SIDE_PX = 1.0
"""Objects with a shorter side after the crop are left out."""
MAX_OBJECTS = 1000
"""The largest number of objects in a crop. If there are more, a random subset is used."""
MAX_MASK_PIXELS = 1 << 27
"""The largest number of mask pixels of a crop, in the boxes of all objects. Further objects are
left out."""
_MARGIN = 2
"""The margin of zeros around a cropped mask, for resampling; see `model.mask_crops`."""

Window = tuple[int, int, int, int]
"""A part of the canvas in whole pixels: top, left, bottom and right."""

ObjectTarget = dict[str, Tensor]
"""The objects of a training image: `size` int64 (2,), height and width without padding; `boxes`
float32 (n, 4); `labels` int64 (n,); with masks also `mask_pixels` uint8 (P,) and `mask_places`
int64 (n, 5)."""


@dataclass(frozen=True)
class ObjectTrainTransform:
    """Large-scale jitter (Ghiasi et al. 2021): scale, crop, pad and flip an image with its objects.

    Args:
        image_size: Height and width of the result, in pixels.
        factor: The minimum and maximum of the random factor on the size at which the image lies
            inside the result.
        fill: The level of each channel in the padding.
        hflip: The probability of a horizontal flip.
        photometric: The probability of each change of colours; see `draw_distortion`.
        masks: Whether masks are needed.
        interpolation: The interpolation of the resize.
        antialias: Whether the resize averages over the source pixels.
    """

    image_size: tuple[int, int]
    factor: tuple[float, float] = (0.1, 2.0)
    fill: tuple[int, ...] = (124, 116, 104)
    hflip: float = 0.5
    photometric: float = 0.0
    masks: bool = False
    interpolation: Interpolation = "bicubic"
    antialias: bool = True

    def __call__(
        self, image: Tensor | Picture, objects: Objects, generator: torch.Generator
    ) -> Sample:
        """Prepare one image and its objects.

        Args:
            image: uint8 (C, H, W) of any size, or a file that holds one.
            objects: The objects in it.
            generator: A generator on the CPU. All random choices are drawn from it.

        Returns:
            uint8 (C, *image_size) and an `ObjectTarget`.

        Raises:
            DataError: The image does not have the size that the objects refer to.
        """
        size = size_of(image)
        _check_size(size, objects)
        placement = draw_placement(
            size, self.image_size, factor=self.factor, fit="inside", hflip=self.hflip,
            generator=generator,
        )  # fmt: skip
        pixels = placement.place_image(
            image, fill=self.fill, interpolation=self.interpolation, antialias=self.antialias
        )
        if self.photometric:
            pixels = draw_distortion(self.photometric, generator)(pixels)
        return Sample(pixels, place_objects(objects, placement, generator, masks=self.masks))


@dataclass(frozen=True)
class ObjectEvalTransform:
    """The preprocessing of whole images for evaluation: resized, never cropped.

    Args:
        preprocessing: Its `image_size` is the largest short side and the largest long side of the
            resized image, in any order. Its crop has no effect.
    """

    preprocessing: Preprocessing

    @property
    def image_size(self) -> tuple[int, int]:
        """The largest sides of the resized image, in pixels."""
        return self.preprocessing.image_size

    def __call__(self, pixels: Tensor, objects: Objects | None = None) -> Sample:
        """Prepare one image.

        Args:
            pixels: uint8 (C, H, W) of any size.
            objects: The objects in it; None if they are unknown. Only their size is checked.

        Returns:
            uint8 (C, h, w), and the height and width of the original image.

        Raises:
            DataError: The image does not have the size that the objects refer to.
        """
        size = size_of(pixels)
        if objects is not None:
            _check_size(size, objects)
        return Sample(self.resized(pixels), size)

    def resized(self, pixels: Tensor) -> Tensor:
        """Resize an image, uint8 (C, H, W), to the size that the network sees."""
        how = self.preprocessing
        original = (pixels.shape[-2], pixels.shape[-1])
        short, long = sorted(how.image_size)
        size = fitted(
            original, (long, short) if original[0] > original[1] else (short, long), "inside"
        )
        return resize(pixels, size, how.interpolation, antialias=how.averages)


def place_objects(
    objects: Objects, placement: Placement, generator: torch.Generator, *, masks: bool
) -> ObjectTarget:
    """Map the objects of an image to a canvas, and clip them at its edges.

    Crowds and objects outside the canvas are left out. With masks, the box of an object is that of
    its clipped mask.

    Args:
        objects: The objects in the image.
        placement: Where the image lies on the canvas.
        generator: Chooses objects if there are more than `MAX_OBJECTS`.
        masks: Whether masks are needed.
    """
    height, width = placement.content
    moved = placement.place_boxes(torch.from_numpy(objects.boxes)).numpy()
    edges = np.array([width, height, width, height], np.float64)
    boxes = np.clip(moved, 0, edges)
    is_left = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX).all(1) & ~objects.crowd
    rows = np.flatnonzero(is_left)
    if len(rows) > MAX_OBJECTS:
        chosen = torch.randperm(len(rows), generator=generator)[:MAX_OBJECTS].sort().values
        rows = rows[chosen.numpy()]
    target = {"size": torch.tensor([height, width])}
    if masks:
        rows, boxes, cut = _cut_masks(objects, placement, rows)
        target |= cut
    else:
        boxes = boxes[rows]
    target["boxes"] = torch.from_numpy(boxes.astype(np.float32))
    target["labels"] = torch.from_numpy(objects.labels[rows].copy())
    return target


def collate_objects(targets: Sequence[Any]) -> list[Any]:
    """Return the targets of a batch as a list, since images have different numbers of objects."""
    return list(targets)


def build_object_train_transform(recipe: Recipe, *, masks: bool) -> ObjectTrainTransform:
    """Build the recipe's augmentation of images with objects."""
    preprocessing = build_preprocessing(recipe)
    return ObjectTrainTransform(
        preprocessing.image_size,
        factor=recipe.scale_jitter,
        fill=tuple(round(255 * value) for value in preprocessing.mean),
        hflip=recipe.hflip,
        photometric=recipe.photometric,
        masks=masks,
        interpolation=recipe.interpolation,
        antialias=preprocessing.averages,
    )


def _cut_masks(
    objects: Objects,
    placement: Placement,
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[str, Tensor]]:
    """Rasterise the masks of objects on the canvas, each cropped to its box.

    Returns:
        The indices of the objects whose masks are not empty, int64 (n,); the boxes of the masks,
        float64 (n, 4); and the masks as entries of an `ObjectTarget`.
    """
    kept, found, pixels, places = [], [], list[NDArray[np.uint8]](), []
    start = 0
    for row in rows.tolist():
        region = objects.regions[row]
        window = _window(_extent(region, placement), placement.content)
        if window[2] <= window[0] or window[3] <= window[1]:
            continue
        mask = _mask_in(region, placement, window)
        lines, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(lines):
            continue
        top, left = window[0] + int(lines[0]), window[1] + int(columns[0])
        bottom, right = window[0] + int(lines[-1]) + 1, window[1] + int(columns[-1]) + 1
        box = np.array([left, top, right, bottom], np.float64)
        y0, x0, y1, x1 = _common(_window(box, placement.content), window)
        if start + (y1 - y0) * (x1 - x0) > MAX_MASK_PIXELS:
            continue
        kept.append(row)
        found.append(box)
        places.append((start, y0, x0, y1 - y0, x1 - x0))
        pixels.append(
            mask[y0 - window[0] : y1 - window[0], x0 - window[1] : x1 - window[1]].reshape(-1)
        )
        start += len(pixels[-1])
    cut = {
        "mask_pixels": torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *pixels])),
        "mask_places": torch.tensor(places, dtype=torch.int64).reshape(-1, 5),
    }
    return np.array(kept, np.int64), np.array(found, np.float64).reshape(-1, 4), cut


def _common(one: Window, other: Window) -> Window:
    return (
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    )


def _extent(region: Region, placement: Placement) -> NDArray[np.float64]:
    """Return the box around a region on the canvas, float64 (4,); it may lie outside."""
    assert region is not None, "a set with masks has one for each object"
    if isinstance(region, Rle):
        corners = box_of(region).reshape(2, 2)
    else:
        corners = np.concatenate(region)
    moved = placement.place_points(torch.from_numpy(corners)).numpy()
    return np.concatenate([moved.min(0), moved.max(0)])


def _window(box: NDArray[np.float64], content: tuple[int, int]) -> Window:
    """Return the pixels of a box with a margin, clipped at the edges of the canvas."""
    x0, y0, x1, y1 = box.tolist()
    top, left = max(0, int(np.floor(y0)) - _MARGIN), max(0, int(np.floor(x0)) - _MARGIN)
    bottom = min(content[0], int(np.ceil(y1)) + _MARGIN)
    right = min(content[1], int(np.ceil(x1)) + _MARGIN)
    return min(top, content[0]), min(left, content[1]), max(bottom, 0), max(right, 0)


def _mask_in(region: Region, placement: Placement, window: Window) -> NDArray[np.uint8]:
    """Rasterise a window of a region's mask on the canvas, uint8 of the window's size."""
    assert region is not None, "a set with masks has one for each object"
    top, left, bottom, right = window
    if isinstance(region, Rle):
        return _sampled(decode(region), placement, window)
    corner = torch.tensor([left, top], dtype=torch.float64)
    moved = tuple(
        (placement.place_points(torch.from_numpy(outline)) - corner).numpy() for outline in region
    )
    return decode(from_polygons(moved, (bottom - top, right - left)))


def _sampled(mask: NDArray[np.uint8], placement: Placement, window: Window) -> NDArray[np.uint8]:
    """Sample a mask at the centres of the pixels of a window, with the nearest neighbour."""
    top, left, bottom, right = window
    y, x = np.arange(top, bottom), np.arange(left, right)
    if placement.flip:
        x = placement.content[1] - 1 - x
    rows = (2 * (y + placement.top) + 1) * placement.original[0] // (2 * placement.resized[0])
    columns = (2 * (x + placement.left) + 1) * placement.original[1] // (2 * placement.resized[1])
    return mask[rows][:, columns]


def _check_size(size: tuple[int, int], objects: Objects) -> None:
    if size != objects.size:
        raise DataError(
            f"the image is {size[1]} x {size[0]} px, its objects are of an image of "
            f"{objects.size[1]} x {objects.size[0]} px. Make them of one size."
        )
