"""Reads TIFF files with any number of bands, or of pages with one band, by tifffile."""

from __future__ import annotations

import io
import logging
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.decode.limits import check_values
from convnextv2.data.decode.pillow import check_bands
from convnextv2.data.decode.tiff import NO_DATA, bits, no_data_value
from convnextv2.errors import DataError, ImageSizeError, MissingPackageError

_ORIENTATION = 274
_MAX_SEGMENTS = 1 << 18
# Compressions whose decoders stop at the end of a strip or tile.
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
_COMPRESSIONS |= {34925: "LZMA", 50000: "Zstandard"}


class Stack:
    """A TIFF file whose bands are known and whose pixels are not decoded yet.

    Attributes:
        height: The height as stored, in pixels.
        width: The width as stored, in pixels.
        bands: The number of bands.
        dtype: The dtype of the values.
        held_pixels: See `Picture.held_pixels`.
        orientation: The orientation, 1 to 8, as in EXIF.
        no_data: The value that means that there is no measurement; None if there is none.
    """

    def __init__(self, data: bytes, channels: int, name: str, max_pixels: int) -> None:
        """Read the directories.

        Args:
            data: The content of the file.
            channels: The number of channels of the network, which is that of the bands or pages.
            name: The name of the file, for error messages.
            max_pixels: The largest number of pixels of an image.

        Raises:
            DataError: The file has another number of bands or pages, or is damaged.
            ImageSizeError: The image, or a tile of it, is too large.
            MissingPackageError: The package tifffile is not installed.
        """
        self._name = name
        file = _tifffile().TiffFile(io.BytesIO(data))
        self._pages = _full_pages(file, channels)
        first = self._pages[0]
        if first.bitspersample != bits(data):  # tifffile ignores a damaged entry
            raise DataError(f"{name}: is damaged (the number of bits per value cannot be read).")
        self.height, self.width, self.bands = _shape(first, name)
        if self.bands != 1 or channels in (1, 3):
            self._pages = self._pages[:1]
            if self.bands not in ((1, 3, 4) if channels in (1, 3) else (channels,)):
                check_bands(self.bands, channels, name)
        elif len(self._pages) == channels:
            self.bands = channels
            self._check_alike()
        else:
            check_bands(len(self._pages), channels, name)
        self.dtype = first.dtype
        self.orientation = _number(first, _ORIENTATION, 1)
        tag = first.tags.get(NO_DATA)
        self.no_data = no_data_value(tag.value if tag else None)
        self.held_pixels = self._check(max_pixels)

    def _check_alike(self) -> None:
        for number, page in enumerate(self._pages, start=1):
            shape = _shape(page, self._name)
            if shape != (self.height, self.width, 1) or page.dtype != self._pages[0].dtype:
                raise DataError(
                    f"{self._name}: page {number} is {shape[1]} x {shape[0]} px of {page.dtype}, "
                    f"but the first {self.width} x {self.height} px of {self._pages[0].dtype}. "
                    "Expected pages of the same size and type."
                )

    def _check(self, max_pixels: int) -> int:
        size = self._pages[0].dtype.itemsize
        held = check_values(self.height, self.width, self.bands, size, self._name, max_pixels)
        for page in self._pages:
            if page.compression not in _COMPRESSIONS:
                raise DataError(
                    f"{self._name}: is compressed in a way (number {int(page.compression)}) that "
                    f"is not read for several bands. Expected {', '.join(_COMPRESSIONS.values())}."
                )
            if len(page.dataoffsets) > _MAX_SEGMENTS:
                raise DataError(f"{self._name}: has more than {_MAX_SEGMENTS} strips or tiles.")
            tile = page.tilewidth * page.tilelength * max(1, page.tiledepth)
            samples = page.samplesperpixel if page.planarconfig == 1 else 1
            if tile * samples * -(-size // 4) > 3 * max_pixels:
                raise ImageSizeError(
                    f"{self._name}: states {self.width} x {self.height} px, but its tiles of "
                    f"{page.tilewidth} x {page.tilelength} px are more than max_image_pixels = "
                    f"{max_pixels}."
                )
            held = max(held, -(-tile * samples // 3))
        return held

    def values(self) -> NDArray[Any]:
        """Decode the values.

        Returns:
            (H, W, bands) of `dtype`.
        """
        try:
            arrays = [_bands_last(page, page.asarray(maxworkers=1)) for page in self._pages]
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise MissingPackageError("imagecodecs", "bands") from None
            raise
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2)


def _tifffile() -> ModuleType:
    try:
        import tifffile
    except ImportError:
        raise MissingPackageError("tifffile", "bands") from None
    # Its messages about damaged files would go to the terminal. Faults that matter are errors.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


def _full_pages(file: Any, channels: int) -> list[Any]:
    """Return at most `channels` + 1 pages, without previews and masks."""
    pages: list[Any] = []
    for page in file.pages:
        page = page.aspage()
        if page.is_reduced or page.is_mask:
            continue
        pages.append(page)
        if len(pages) > channels:
            break
    if not pages:
        raise ValueError("it has no page")
    return pages


def _number(page: Any, tag: int, default: int) -> int:
    found = page.tags.get(tag)
    return found.value if found and isinstance(found.value, int) else default


def _shape(page: Any, name: str) -> tuple[int, int, int]:
    """Return the height, width and bands of a page."""
    if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "buif":
        raise DataError(
            f"{name}: holds {page.dtype} in {page.imagedepth} layers. Expected whole numbers or "
            "floats in one layer."
        )
    return page.imagelength, page.imagewidth, page.samplesperpixel


def _bands_last(page: Any, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        return array[..., None]
    return array.transpose(1, 2, 0) if page.planarconfig == 2 else array
