"""Converts arrays of any number of bands to pixels: .npy files, and the output of tifffile."""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.data.decode.limits import check_values
from convnextv2.data.decode.orientation import upright
from convnextv2.data.decode.pillow import check_bands, on_white
from convnextv2.data.decode.values import to_pixels
from convnextv2.errors import DataError

NPY = b"\x93NUMPY"
_KINDS = "buif"
_LONGEST_HEADER = 10_000


class Shape(NamedTuple):
    """The shape of an image in an array.

    Attributes:
        height: The height in pixels.
        width: The width in pixels.
        bands: The number of bands.
    """

    height: int
    width: int
    bands: int


class Array(NamedTuple):
    """The header of a .npy file.

    Attributes:
        shape: The shape of the image.
        whole: The shape of the array in the file.
        dtype: The dtype of the values.
        is_fortran: Whether the array is in Fortran order (first axis fastest).
        begin: The position of the values in the file, in bytes.
        held_pixels: See `Picture.held_pixels`.
    """

    shape: Shape
    whole: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    begin: int
    held_pixels: int


def read_header(data: bytes, channels: int, name: str, max_pixels: int) -> Array:
    """Read and check the header of a .npy file.

    Args:
        data: The content of the file.
        channels: The number of channels of the network. It decides which axis is that of the bands.
        name: The name of the file, for error messages.
        max_pixels: The largest number of pixels of an image.

    Raises:
        DataError: The file has no image or another number of bands, or is cut short.
        ImageSizeError: The image is too large.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    whole, is_fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    if dtype.kind not in _KINDS:
        raise DataError(f"{name}: is an array of {dtype}. Expected whole numbers or floats.")
    shape = _shape(whole, channels, name)
    held = check_values(*shape, dtype.itemsize, name, max_pixels)
    there, needed = len(data) - file.tell(), math.prod(whole) * dtype.itemsize
    if there < needed:
        share = 100 * there // needed
        raise DataError(f"{name}: is cut short: about {share} % of its values are present.")
    return Array(shape, whole, dtype, is_fortran, file.tell(), held)


def _shape(whole: tuple[int, ...], channels: int, name: str) -> Shape:
    """Recognise (H, W), (H, W, C) or (C, H, W). If both axes are possible, C is the last."""
    if len(whole) not in (2, 3) or 0 in whole:
        raise DataError(
            f"{name}: is an array of shape {whole}. Expected (H, W), (H, W, C) or (C, H, W)."
        )
    if len(whole) == 2:
        return Shape(whole[0], whole[1], 1)
    usable = {1, 3, 4} if channels in (1, 3) else {channels}
    for wanted in ({channels}, usable):
        if whole[2] in wanted:
            return Shape(*whole)
        if whole[0] in wanted:
            return Shape(whole[1], whole[2], whole[0])
    check_bands(min(whole[0], whole[2]), channels, name)
    raise AssertionError("unreachable")


def values_of(data: bytes, array: Array) -> NDArray[Any]:
    """Return the values of a .npy file, (H, W, C), as a view of `data`."""
    count = math.prod(array.whole)
    values = np.frombuffer(data, array.dtype, count, array.begin)
    values = values.reshape(array.whole, order="F" if array.is_fortran else "C")
    if values.ndim == 2:
        return values[..., None]
    is_last = array.whole == array.shape
    return values if is_last else values.transpose(1, 2, 0)


def from_array(
    values: NDArray[Any],
    channels: int,
    value_range: tuple[float, float] | None,
    *,
    name: str,
    no_data: float | None = None,
    orientation: int = 1,
) -> Tensor:
    """Convert an array to pixels.

    Args:
        values: (H, W, C) of any real dtype. True and False become 255 and 0.
        channels: C; or 3 or 1, into which arrays of 1, 3 or 4 bands are converted.
        value_range: The values that become 0 and 255. It has no effect on uint8.
        name: The name of the file, for error messages.
        no_data: The value that means that there is no measurement; None if there is none.
        orientation: The EXIF orientation, 1 to 8.

    Returns:
        uint8 (channels, H, W), upright.
    """
    if values.dtype == np.bool_:
        pixels = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype == np.uint8:
        pixels = np.ascontiguousarray(values)
    else:
        pixels = np.empty(values.shape, np.uint8)
        bands = values
        if values.shape[2] == 4 and channels in (1, 3):
            _scale_transparency(values, pixels)
            bands = values[..., :3]
        to_pixels(
            lambda rows: bands[rows],
            pixels[..., : bands.shape[2]],
            value_range=value_range,
            no_data=no_data,
            name=name,
        )
    return upright(_with_channels(pixels, channels, name), orientation)


def _scale_transparency(values: NDArray[Any], pixels: NDArray[np.uint8]) -> None:
    """Scale the fourth band of `values` to 0 to 255, and write it to `pixels`.

    The value for opaque is the largest of an integer dtype, or 1 for floats.
    """
    opaque = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    pixels[..., 3] = (values[..., 3].astype(np.float32) * (255 / opaque)).round().clip(0, 255)


def _with_channels(pixels: NDArray[np.uint8], channels: int, name: str) -> NDArray[np.uint8]:
    bands = pixels.shape[2]
    if bands == channels:
        return pixels.copy() if not pixels.flags.writeable else pixels
    if channels not in (1, 3) or bands not in (1, 3, 4):
        check_bands(bands, channels, name)
    if bands == 1:
        return np.repeat(pixels, channels, axis=2)
    image = Image.fromarray(pixels)
    image = on_white(image) if bands == 4 else image
    mixed = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return mixed.reshape(*pixels.shape[:2], channels).copy()
