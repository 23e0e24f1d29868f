"""Random scale, crop, flip and padding of images together with their annotations.

A `Placement` is drawn first. It is then applied to the image and to its annotations (label map,
boxes or polygons), so that they still match.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from convnextv2.data.decode import Picture
from convnextv2.data.randomness import happens, integer, uniform
from convnextv2.data.resize import resize
from convnextv2.preprocessing import MAX_ELONGATION, Interpolation

Fit = Literal["cover", "inside"]
"""The size of an image before a random factor is applied: the smallest one that covers the canvas
("cover"), or the largest one that lies inside it ("inside")."""


@dataclass(frozen=True)
class Placement:
    """The position of a resized image on a canvas.

    The image is resized, and a part as large as the canvas is cropped from it. The crop may be
    flipped. If it is smaller than the canvas, the canvas is padded on the right and at the bottom.

    Attributes:
        size: Height and width of the canvas, in pixels.
        original: Height and width of the image, in pixels.
        resized: Height and width of the resized image, in pixels.
        top: The number of rows of the resized image above the crop.
        left: The number of columns of the resized image to the left of the crop.
        flip: Whether the crop is flipped horizontally.
    """

    size: tuple[int, int]
    original: tuple[int, int]
    resized: tuple[int, int]
    top: int = 0
    left: int = 0
    flip: bool = False

    @property
    def content(self) -> tuple[int, int]:
        """Height and width of the part of the canvas that is not padding."""
        return (
            min(self.size[0], self.resized[0] - self.top),
            min(self.size[1], self.resized[1] - self.left),
        )

    @property
    def scale(self) -> tuple[float, float]:
        """The factors by which the image is resized, in height and in width."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def place_image(
        self,
        image: Tensor | Picture,
        *,
        fill: tuple[int, ...],
        interpolation: Interpolation = "bicubic",
        antialias: bool = True,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Resize, crop, flip and pad the image.

        Args:
            image: uint8 (C, H, W), or a file that holds one.
            fill: The level of each channel in the padding.
            interpolation: The interpolation of the resize.
            antialias: Whether the resize averages over the source pixels.
            change: Changes the crop, uint8 (C, h, w), before it is padded.

        Returns:
            uint8 (C, *size).
        """
        if isinstance(image, Picture):
            averages = antialias and interpolation != "nearest"
            pixels = image.decode(self._reduction() if averages else 1)
        else:
            pixels = image
        pixels = resize(pixels, self.resized, interpolation, antialias=antialias)
        height, width = self.content
        cut = pixels[:, self.top : self.top + height, self.left : self.left + width]
        cut = cut.flip(-1) if self.flip else cut
        cut = cut if change is None else change(cut)
        if (height, width) == self.size:
            return cut
        levels = torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1)
        canvas = levels.expand(len(pixels), *self.size).clone()
        canvas[:, :height, :width] = cut
        return canvas

    def place_map(self, labels: Tensor, fill: int) -> Tensor:
        """Resize, crop, flip and pad a label map, with nearest-neighbour interpolation.

        Args:
            labels: Integers (H, W), of the size of the image.
            fill: The label of the padding.

        Returns:
            Integers (*size), in the same dtype.
        """
        height, width = self.content
        rows = _nearest(self.top, height, self.original[0], self.resized[0])
        columns = _nearest(self.left, width, self.original[1], self.resized[1])
        cut = labels[rows][:, columns]
        cut = cut.flip(-1) if self.flip else cut
        if (height, width) == self.size:
            return cut
        canvas = labels.new_full(self.size, fill)
        canvas[:height, :width] = cut
        return canvas

    def place_points(self, points: Tensor) -> Tensor:
        """Map points of the image to the canvas. They may lie outside it.

        Args:
            points: Floats (..., 2), x and y in pixels of the image. (0, 0) is the outer corner of
                the pixel at the top left.

        Returns:
            Floats of the same shape, in pixels of the canvas.
        """
        x = points[..., 0] * self.scale[1] - self.left
        y = points[..., 1] * self.scale[0] - self.top
        return torch.stack([self.content[1] - x if self.flip else x, y], dim=-1)

    def place_boxes(self, boxes: Tensor) -> Tensor:
        """Map boxes of the image to the canvas. They may lie outside it.

        Args:
            boxes: Floats (N, 4): left, top, right and bottom in pixels of the image.

        Returns:
            Floats (N, 4), in pixels of the canvas.
        """
        first, second = self.place_points(boxes[:, :2]), self.place_points(boxes[:, 2:])
        if self.flip:
            first[:, 0], second[:, 0] = second[:, 0].clone(), first[:, 0].clone()
        return torch.cat([first, second], dim=1)

    def at_another_place(self, generator: torch.Generator) -> Placement:
        """Draw the position of the crop again, and keep the size and the flip."""
        top, left = _draw_corner(self.resized, self.size, generator)
        return replace(self, top=top, left=left)

    def _reduction(self) -> int:
        """Return the factor by which a file may be reduced in decoding; see `TrainTransform`."""
        spare = min(1 / scale for scale in self.scale)
        return next((reduction for reduction in (8, 4, 2) if spare >= 1.5 * reduction), 1)


def size_of(image: Tensor | Picture) -> tuple[int, int]:
    """Return the height and width of an image, in pixels."""
    if isinstance(image, Picture):
        return image.height, image.width
    return image.shape[-2], image.shape[-1]


def draw_placement(
    original: tuple[int, int],
    size: tuple[int, int],
    *,
    factor: tuple[float, float],
    fit: Fit,
    hflip: float,
    generator: torch.Generator,
) -> Placement:
    """Draw a random placement.

    Args:
        original: Height and width of the image, in pixels.
        size: Height and width of the canvas, in pixels.
        factor: The minimum and maximum of the random factor on the size of the image.
        fit: The size of the image at a factor of 1; see `Fit`.
        hflip: The probability of a horizontal flip.
        generator: A generator on the CPU. Four numbers are always drawn from it.
    """
    resized = fitted(original, size, fit, uniform(generator, *factor))
    top, left = _draw_corner(resized, size, generator)
    return Placement(size, original, resized, top, left, happens(generator, hflip))


def fitted(
    original: tuple[int, int], size: tuple[int, int], fit: Fit, factor: float = 1.0
) -> tuple[int, int]:
    """Compute the size at which an image covers a canvas or lies inside it.

    The aspect ratio is kept. No side exceeds `MAX_ELONGATION` times the longer side of the canvas,
    because an image of 1 x 10,000 pixels would otherwise fill the memory.

    Args:
        original: Height and width of the image.
        size: Height and width of the canvas.
        fit: Whether the image covers the canvas or lies inside; see `Fit`.
        factor: A factor on the result.

    Returns:
        Height and width, at least 1 each.
    """
    choose = max if fit == "cover" else min
    scale = factor * choose(size[0] / original[0], size[1] / original[1])
    scale = min(scale, MAX_ELONGATION * max(size) / max(original))
    height, width = (max(1, round(side * scale)) for side in original)
    return height, width


def _draw_corner(
    resized: tuple[int, int], size: tuple[int, int], generator: torch.Generator
) -> tuple[int, int]:
    top, left = (
        integer(generator, 0, max(0, side - kept) + 1)
        for side, kept in zip(resized, size, strict=True)
    )
    return top, left


def _nearest(start: int, count: int, original: int, resized: int) -> Tensor:
    """Return the indices of the pixels in which the centres of resized pixels lie, int64."""
    centres = 2 * torch.arange(start, start + count) + 1
    return centres * original // (2 * resized)
