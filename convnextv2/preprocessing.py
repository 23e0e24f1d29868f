"""The preprocessing of images for evaluation, as one frozen object that needs no PyTorch.

Weights files and artifacts carry it as JSON. The recipe, the transforms, other tools' formats and
the server's description all use this object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Preset = Literal["timm", "official", "mindcv"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

WARPS_FROM_PX = 384
"""From this size on, the official code, timm and transformers warp images instead of cropping."""
WARPS_TO_PX = 32
"""The official code also warps images of this size or less."""

MAX_ELONGATION = 16
"""Before resizing, images are cut to at most this many times the crop's aspect ratio.

An image of 1 x 10,000 pixels would otherwise become 256 x 2,560,000. The centre crop discards the
ends anyway."""


LONGEST_SIDE_PX = 16_384
"""The largest accepted side of an image. A larger side is a mistake and would exhaust memory."""


def official_warps(image_size: tuple[int, int]) -> bool:
    """Return whether the preset "official" warps images to this size instead of cropping them."""
    return not WARPS_TO_PX < max(image_size) < WARPS_FROM_PX


@dataclass(frozen=True)
class Preprocessing:
    """How a model's images are prepared for evaluation.

    Attributes:
        image_size: Height and width of the result, in pixels.
        channels: Channels of the images.
        eval_preset: "timm" resizes to floor(image_size / crop_pct), antialiased, and takes the
            centre crop. "official" (facebookresearch/ConvNeXt-V2) does the same below 384 px; from
            384 px on, and up to 32 px, it warps the whole image to image_size (the longer side
            counts). "mindcv" is timm's without antialiasing, with the crop's offsets rounded down.
        interpolation: The kind of resizing.
        crop_pct: The share of the resized image's side that the centre crop keeps.
        mean: The mean of each channel, on the scale 0 to 1.
        std: The standard deviation of each channel, on the scale 0 to 1.
        antialias: Whether the resize averages over the source pixels; None for the preset's choice.
        value_range: The values that become 0 and 255 in files deeper than 8 bits; None for the rule
            of `data.decode.open_picture`.
    """

    image_size: tuple[int, int]
    channels: int = 3
    eval_preset: Preset = "timm"
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    antialias: bool | None = None
    value_range: tuple[float, float] | None = None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Preprocessing:
        """Build the object from the JSON of a weights file or artifact, which must be checked."""
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON from which `read` makes this object.

        `value_range` is there only if it is set, so that older versions can read files without it.
        """
        content = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        if content["value_range"] is None:
            del content["value_range"]
        return content

    @property
    def warps(self) -> bool:
        """True if the whole image is resized to `image_size` and nothing is cropped."""
        return self.eval_preset == "official" and official_warps(self.image_size)

    @property
    def averages(self) -> bool:
        """True if the resize averages over the source pixels (antialiasing)."""
        return self.eval_preset != "mindcv" if self.antialias is None else self.antialias

    def kept(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns that remain after the ends of a very long image are cut."""
        rows = min(
            height, max(1, MAX_ELONGATION * width * self.image_size[0] // self.image_size[1])
        )
        columns = min(
            width, max(1, MAX_ELONGATION * height * self.image_size[1] // self.image_size[0])
        )
        top, left = (height - rows) // 2, (width - columns) // 2
        return slice(top, top + rows), slice(left, left + columns)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Compute the height and width to which an image is resized before the centre crop.

        The aspect ratio is kept. One side becomes image_size / crop_pct, and the other is at least
        its own image_size / crop_pct.
        """
        least_height, least_width = (math.floor(side / self.crop_pct) for side in self.image_size)
        # The other side is rounded down; timm rounds it to the nearest integer if image_size is not
        # square. One pixel more or less shifts the crop, and thus every value that the network
        # sees.
        extra = 0.5 if self.eval_preset == "timm" and least_height != least_width else 0.0
        if height * least_width <= width * least_height:  # height is shorter, in crops
            return least_height, math.floor(least_height * width / height + extra)
        return math.floor(least_width * height / width + extra), least_width

    def corner(self, resized: tuple[int, int]) -> tuple[int, int]:
        """Return the top and left of the centre crop in a resized image."""
        down = math.floor if self.eval_preset == "mindcv" else round
        return (
            down((resized[0] - self.image_size[0]) / 2),
            down((resized[1] - self.image_size[1]) / 2),
        )

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the part of an image that the network sees, as shares of its sides.

        Args:
            height: The height of the image, in pixels.
            width: The width of the image, in pixels.

        Returns:
            Top, left, height and width.
        """
        if self.warps:
            return 0.0, 0.0, 1.0, 1.0
        rows, columns = self.kept(height, width)
        kept = rows.stop - rows.start, columns.stop - columns.start
        size = self.resized(*kept)
        top, left = self.corner(size)
        scale = kept[0] / size[0], kept[1] / size[1]  # px of the image per resized px
        return (
            (rows.start + top * scale[0]) / height,
            (columns.start + left * scale[1]) / width,
            self.image_size[0] * scale[0] / height,
            self.image_size[1] * scale[1] / width,
        )
