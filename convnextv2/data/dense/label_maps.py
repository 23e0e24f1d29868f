"""Reads label maps: image files whose values state the class of each pixel."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from convnextv2.data.path_list import PathList
from convnextv2.data.storage import read_file
from convnextv2.errors import DataError, ImageSizeError, StorageError

IGNORED = -1
"""The class index of pixels that have no effect on the loss and on metrics."""

MAP_SUFFIXES = frozenset((".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".webp"))
"""Endings of lossless formats."""
LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif"))
"""Endings of lossy formats, which change values."""

_FORMATS = ("PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
_UNKNOWN = -2


@dataclass(frozen=True, eq=False)
class Coding:
    """The classes of the values of label maps.

    Attributes:
        values: The values of classes. A colour is the value 65536 * red + 256 * green + blue.
        rows: The class index of each value.
        ignored: The values whose pixels are ignored.
        coloured: Whether values are colours.
    """

    values: tuple[int, ...]
    rows: tuple[int, ...]
    ignored: tuple[int, ...] = (255,)
    coloured: bool = False
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _sorted: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the values for `np.searchsorted`."""
        ignored = [value for value in self.ignored if value not in self.values]
        known = np.array([*self.values, *ignored], np.int64)
        classes = np.array([*self.rows, *[IGNORED] * len(ignored)], np.int64)
        order = np.argsort(known)
        object.__setattr__(self, "_sorted", known[order])
        object.__setattr__(self, "_order", classes[order])

    def classes_of(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Convert values to class indices.

        Args:
            values: Integers of any shape.

        Returns:
            int16 of the same shape: class indices, `IGNORED`, or -2 for unknown values.
        """
        if values.dtype == np.uint8:
            return self._looked_up(np.arange(256))[values]
        return self._looked_up(values)

    def encode(self, values: NDArray[Any], name: str) -> Tensor:
        """Convert a label map to class indices.

        Args:
            values: Integers (H, W).
            name: The name of the file, for error messages.

        Returns:
            int16 (H, W): class indices and `IGNORED`.

        Raises:
            DataError: A value is neither that of a class nor ignored.
        """
        classes = self.classes_of(values)
        is_unknown = classes == _UNKNOWN
        if is_unknown.any():
            row, column = np.argwhere(is_unknown)[0].tolist()
            shown = self.show(int(values[row, column]))
            raise DataError(
                f"{name}: holds {shown} (row {row}, column {column}), which belongs to none of the "
                f"{len(self.values)} classes. Add it to the class table or to ignore_values."
            )
        return torch.from_numpy(classes)

    def show(self, value: int) -> str:
        """Return a value as text for a message."""
        if not self.coloured:
            return f"the value {value}"
        return f"the colour {value >> 16},{value >> 8 & 255},{value & 255}"

    def _looked_up(self, values: NDArray[Any]) -> NDArray[np.int16]:
        at = np.searchsorted(self._sorted, values).clip(max=len(self._sorted) - 1)
        found = np.where(self._sorted[at] == values, self._order[at], _UNKNOWN)
        return found.astype(np.int16)


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The label maps of a source's images; see `dense.source.Annotations`.

    Attributes:
        paths: The files of the maps.
        coding: The classes of their values.
        max_pixels: The largest map that is read, in pixels.
    """

    paths: PathList
    coding: Coding
    max_pixels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Read the map of an image.

        Returns:
            int16 (H, W): class indices and `IGNORED`.

        Raises:
            StorageError: The storage of the file is out of reach.
            DataError: The map cannot be read, or has a value that is unknown.
        """
        name = self.paths[index]
        values = read_values(
            read_file(self.paths, index),
            name=name,
            max_pixels=self.max_pixels,
            coloured=self.coding.coloured,
        )
        return self.coding.encode(values, name)

    def take(self, indices: NDArray[np.int64]) -> LabelMaps:
        """Return the maps at these indices, in this order."""
        return LabelMaps(self.paths.take(indices), self.coding, self.max_pixels)

    def is_out_of_reach(self, index: int) -> bool:
        """Return whether a map cannot be read because its storage is out of reach."""
        try:
            read_file(self.paths, index)
        except StorageError:
            return True
        except DataError:
            return False
        return False


def read_values(data: bytes, *, name: str, max_pixels: int, coloured: bool) -> NDArray[Any]:
    """Read the values of a label map. The EXIF orientation is ignored.

    Args:
        data: The content of the file.
        name: The name of the file, for error messages.
        max_pixels: The largest map that is read, in pixels.
        coloured: Whether values are colours. If so, the indices of a palette are converted to its
            colours; otherwise the indices are the values. GIF is an exception, because programs
            renumber its palette: its grey levels are the values.

    Returns:
        Integers (H, W). A colour is the value 65536 * red + 256 * green + blue.

    Raises:
        DataError: The file cannot be read as a label map.
    """
    if Path(name).suffix.lower() in LOSSY_SUFFIXES or data.startswith(b"\xff\xd8\xff"):
        raise _lossy(name, "is a JPEG file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes; max_pixels limits them
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ImageSizeError(
                        f"{name}: {image.width} x {image.height} px are more than "
                        f"max_image_pixels = {max_pixels}."
                    )
                if image.format == "WEBP" and b"VP8 " in _chunks(data):
                    raise _lossy(name, "is a lossy WebP file")
                if image.info.get("compression") in ("jpeg", "tiff_jpeg"):
                    raise _lossy(name, "is a TIFF file compressed as JPEG")
                if _has_pages(image):
                    raise DataError(
                        f"{name}: holds several pictures of one size, and it is not known which "
                        "one is the label map. Save that one alone, as PNG."
                    )
                return _values_of(image, name, coloured)
    except DataError:
        raise
    except Exception as error:  # damaged files raise errors of many types
        why = str(error).split("\n")[0][:200] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text shows the address of an object
            why = "it has no supported format" if data else "the file is empty"
        raise DataError(
            f"{name}: cannot be read as a label map ({why}). Expected PNG or another lossless "
            "format."
        ) from None


def _lossy(name: str, what: str) -> DataError:
    return DataError(
        f"{name}: {what}, which changes values as they are written, so classes are not kept. Save "
        "label maps as PNG."
    )


def _chunks(data: bytes) -> set[bytes]:
    """Return the kinds of the chunks of a WebP file. The pixels of a lossy one are in "VP8 "."""
    found, at = set(), 12
    while at + 8 <= len(data):
        found.add(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return found


def _has_pages(image: Image.Image) -> bool:
    """Return whether a file has a second picture of the same size; a smaller one is an overview."""
    size = image.size
    try:
        image.seek(1)
    except EOFError:
        return False
    has_another = image.size == size
    image.seek(0)
    return has_another


def is_coloured(values: NDArray[Any]) -> bool:
    """Return whether any value (H, W) is a colour that is not grey."""
    red, green, blue = values >> 16, values >> 8 & 255, values & 255
    return bool(((red != green) | (green != blue)).any())


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Return by how much Pillow multiplies grey levels of 2 or 4 bits to fill 0 to 255; or 1.

    An image must not be loaded before, because its raw mode is known only until then.
    """
    args = image.tile[0][3] if image.tile else ""
    raw_mode = str(args[0] if isinstance(args, tuple) else args)
    return 85 if raw_mode.startswith("L;2") else 17 if raw_mode.startswith("L;4") else 1


def _values_of(file: ImageFile.ImageFile, name: str, coloured: bool) -> NDArray[Any]:
    """Return the values of an opened label map; see `read_values`."""
    step = _grey_step(file)
    _check_opaque(file, name)
    # Programs renumber the palette when they save GIF, so only its colours are certain.
    image = file.convert("RGB") if file.format == "GIF" else file
    values: NDArray[Any]
    if image.mode == "1":
        values = np.asarray(image).astype(np.uint8)
    elif image.mode in ("I", "I;16", "I;16B", "I;16L"):
        values = np.asarray(image).astype(np.int64)
    elif image.mode not in ("L", "LA", "P", "PA", "RGB", "RGBA"):
        raise DataError(
            f"{name}: has pixels of mode {image.mode}, expected whole numbers or colours. Save "
            "it as PNG with 8 or 16 bits."
        )
    elif coloured:
        values = _packed(np.asarray(image.convert("RGB")))
    elif image.mode in ("P", "PA"):
        values = np.asarray(image.convert("P") if image.mode == "PA" else image)
    elif image.mode in ("L", "LA"):
        values = np.asarray(image.getchannel("L") if image.mode == "LA" else image)
        values = values // step if step > 1 else values
    else:
        values = _grey_values(image, name)
    if values.min() < 0 or values.max() > 0xFFFFFF:
        raise DataError(f"{name}: holds values below 0 or above 16,777,215, which are not classes.")
    return values


def _check_opaque(image: Image.Image, name: str) -> None:
    """Raise DataError if a label map has transparent pixels."""
    if image.mode in ("LA", "PA", "RGBA") and np.asarray(image.getchannel("A")).min() < 255:
        raise DataError(
            f"{name}: has transparent pixels, so its values are ambiguous. Save it without "
            "transparency."
        )


def _grey_values(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return the grey levels of an image in RGB.

    Raises:
        DataError: A pixel is not grey.
    """
    values = _packed(np.asarray(image.convert("RGB")))
    if is_coloured(values):
        raise DataError(
            f"{name}: its pixels are colours, and nothing states which class a colour stands for. "
            "Give a class table with colours (classes)."
        )
    return (values & 255).astype(np.uint8)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = (colours[..., i].astype(np.int64) for i in range(3))
    return red << 16 | green << 8 | blue
