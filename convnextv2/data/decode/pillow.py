"""Converts Pillow images to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.data.decode.orientation import orientation_of, upright
from convnextv2.data.decode.tiff import NO_DATA, no_data_value
from convnextv2.data.decode.values import STRIP_VALUES, to_pixels
from convnextv2.errors import ChannelsError, DataError

_SAMPLE_FORMAT, _BITS = 339, 258  # TIFF tags

# Modes that Pillow cannot convert to all others in one step -> the mode in between.
_ON_THE_WAY = {"LAB": "RGB", "HSV": "RGB", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


def from_pillow(
    image: Image.Image,
    channels: int,
    value_range: tuple[float, float] | None = None,
    *,
    name: str = "image",
) -> Tensor:
    """Convert an open Pillow image to pixels by the rules of `open_picture`.

    Args:
        image: An image of any mode.
        channels: 3, 1, or the number of bands of the image.
        value_range: The values that become 0 and 255 if the image has more than 8 bits.
        name: The name of the image, for error messages.

    Returns:
        uint8 (channels, H, W), upright.

    Raises:
        DataError: The image has another number of bands, no pixels or no finite value.
    """
    image.load()  # for TIFF, this also turns the image upright, and removes its orientation
    orientation = orientation_of(image)
    width, height = image.size
    if not width or not height:
        raise DataError(f"{name}: has no pixels ({width} x {height}). Expected an image.")
    if channels not in (1, 3):
        check_bands(len(_as_bands(image, (0, 0, 1, 1)).getbands()), channels, name)
    pixels = np.empty((height, width, channels), np.uint8)
    if is_deep(image):
        no_data = no_data_value(getattr(image, "tag_v2", {}).get(NO_DATA))
        to_pixels(
            lambda rows: _deep_values(image, rows),
            pixels,
            value_range=value_range,
            no_data=no_data,
            name=name,
        )
        return upright(pixels, orientation)
    rows = max(1, STRIP_VALUES // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        if channels in (1, 3):
            strip = _as_colour(image.crop(box), "RGB" if channels == 3 else "L")
        else:
            strip = _as_bands(image, box)
        pixels[top : box[3]] = np.asarray(strip).reshape(box[3] - top, width, channels)
    return upright(pixels, orientation)


def check_bands(bands: int, channels: int, name: str) -> None:
    """Raise a ChannelsError if a file has another number of bands than the network takes."""
    if bands != channels:
        plural = "" if bands == 1 else "s"
        raise ChannelsError(
            f"{name}: has {bands} channel{plural}, expected {channels} (in_channels). Images of "
            f"{channels} channels are TIFF files of {channels} bands or pages, or .npy arrays.",
            bands,
        )


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has values of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def deep_values(image: Image.Image) -> tuple[NDArray[Any], float | None]:
    """Return values with more than 8 bits, (H, W, 1), and the no-data value, if there is one."""
    image.load()
    values = _deep_values(image, slice(0, image.height))
    no_data = no_data_value(getattr(image, "tag_v2", {}).get(NO_DATA))
    return values[..., None], no_data


def bands_of(image: Image.Image) -> int:
    """Return the number of bands. For a palette, it is that of its colours."""
    return 3 if image.mode == "P" else len(image.getbands())


def _deep_values(image: Image.Image, rows: slice) -> NDArray[Any]:
    values = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1 and tags.get(_BITS) == (32,):
        return values.view(np.uint32)  # Pillow reads them as signed
    return values


def _as_colour(image: Image.Image, mode: str) -> Image.Image:
    """Convert to RGB or L, and composite transparent images on white."""
    if image.mode in _ON_THE_WAY:
        image = image.convert(_ON_THE_WAY[image.mode])
    if image.has_transparency_data:
        image = on_white(image.convert("RGBA"))
    return image.convert(mode)


def on_white(image: Image.Image) -> Image.Image:
    """Composite an RGBA image on white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _as_bands(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Crop a part with its bands unchanged. A palette is converted to its colours."""
    part = image.crop(box)
    if part.mode == "P":
        return part.convert("RGBA" if part.has_transparency_data else "RGB")
    if part.mode == "1":
        return part.convert("L")
    return part.convert(_ON_THE_WAY[part.mode]) if part.mode in _ON_THE_WAY else part
