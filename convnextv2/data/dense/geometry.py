"""Where an image lies on the canvas of a training sample: scale, crop, flip and padding.

A `Placement` is drawn first and applied later, to the image and to whatever belongs to it: a label
map, boxes, the corners of polygons. All of them are moved by the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from convnextv2.data.chance import happens, integer, uniform
from convnextv2.data.decode import Picture
from convnextv2.data.transforms import resize
from convnextv2.preprocessing import MAX_ELONGATION, Interpolation

Fit = Literal["cover", "inside"]
"""The size of an image to which a random factor is applied: the smallest at which it covers the
canvas, or the largest at which all of it lies inside."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies on a canvas.

    The image is resized, and the canvas's size is cut out of it. What is cut out is perhaps
    mirrored. If it is smaller than the canvas, the rest of the canvas, on the right and at the
    bottom, is padding.

    Attributes:
        size: Height and width of the canvas, in pixels.
        original: Height and width of the image, in pixels.
        resized: Height and width of the resized image, in pixels.
        top: Rows of the resized image above what is cut out.
        left: Columns to the left of it.
        flip: Whether what is cut out is mirrored, left to right.
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
        """Pixels of the canvas for each pixel of the image, in height and in width."""
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
        """Place the image.

        Args:
            image: uint8 (C, H, W), or a file that holds one.
            fill: The level of each channel that the padding gets.
            interpolation: The interpolation of the resize.
            antialias: Whether the resize averages over the source pixels.
            change: Changes the pixels that are cut out, uint8 (C, h, w), before they are padded.

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
        """Place a label map. Each pixel gets the label of the pixel in which its centre lies.

        Args:
            labels: Integers (H, W) of the image's own size.
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
        """Move points. They may come to lie outside the canvas.

        Args:
            points: Floats (..., 2), x and y in pixels of the image; (0, 0) is the outer corner of
                its first pixel.

        Returns:
            Floats of the same shape, in pixels of the canvas.
        """
        x = points[..., 0] * self.scale[1] - self.left
        y = points[..., 1] * self.scale[0] - self.top
        return torch.stack([self.content[1] - x if self.flip else x, y], dim=-1)

    def place_boxes(self, boxes: Tensor) -> Tensor:
        """Move boxes. They may come to lie outside the canvas, wholly or in part.

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
        """Draw the place of the cut again, and keep the size and the flip."""
        top, left = _draw_corner(self.resized, self.size, generator)
        return replace(self, top=top, left=left)

    def _reduction(self) -> int:
        """Return the factor by which a file may be decoded smaller; see `TrainTransform`."""
        spare = min(1 / scale for scale in self.scale)
        return next((reduction for reduction in (8, 4, 2) if spare >= 1.5 * reduction), 1)


def draw_placement(
    original: tuple[int, int],
    size: tuple[int, int],
    *,
    factor: tuple[float, float],
    fit: Fit,
    hflip: float,
    generator: torch.Generator,
) -> Placement:
    """Draw where an image lies on a canvas.

    Args:
        original: Height and width of the image, in pixels.
        size: Height and width of the canvas, in pixels.
        factor: The smallest and the largest random factor on the size of the image.
        fit: The size of the image at a factor of 1.
        hflip: Probability that it is mirrored.
        generator: On the CPU. Four numbers are drawn from it, whatever they decide.
    """
    resized = fitted(original, size, fit, uniform(generator, *factor))
    top, left = _draw_corner(resized, size, generator)
    return Placement(size, original, resized, top, left, happens(generator, hflip))


def fitted(
    original: tuple[int, int], size: tuple[int, int], fit: Fit, factor: float = 1.0
) -> tuple[int, int]:
    """Compute the size at which an image covers a canvas, or lies inside it.

    Its aspect ratio is kept. No side becomes more than `MAX_ELONGATION` times the longer side of
    the canvas, since an image of 1 x 10,000 pixels would fill the memory otherwise.

    Args:
        original: Height and width of the image.
        size: Height and width of the canvas.
        fit: Which of the two.
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
    """Return the positions of an axis in which the centres of resized positions lie, int64."""
    centres = 2 * torch.arange(start, start + count) + 1
    return centres * original // (2 * resized)
