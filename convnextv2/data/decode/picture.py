"""Opens image files: reads and checks the header, and decodes the pixels later."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffTags, features
from torch import Tensor

from convnextv2.data.decode import arrays, avif, headers, jpeg, jpeg2000, png, stacks, tiff
from convnextv2.data.decode.failures import is_heic, our_errors, refuse_unknown
from convnextv2.data.decode.limits import Part, check_parts
from convnextv2.data.decode.orientation import orientation_of, upright
from convnextv2.data.decode.pillow import bands_of, deep_values, from_pillow, is_deep
from convnextv2.data.decode.pnm import is_ranged, is_slow, largest, ranged_values
from convnextv2.data.formats import sniff
from convnextv2.errors import DataError

# Formats whose decoders allocate more than the header states, or allocate it on opening.
_PARTS: dict[str, Callable[[bytes, str], Iterator[Part]]] = {
    "AVIF": avif.parts,
    "GIF": headers.gif,
    "JPEG2000": jpeg2000.parts,
    "TIFF": tiff.parts,
    "WEBP": headers.webp,
}
_FEATURES = {"AVIF": ("avif", "11.3"), "WEBP": ("webp", "10.3"), "JPEG2000": ("jpg_2000", "10.3")}
_MAX_PIXELS_IN_PYTHON = 1 << 22


class Values(NamedTuple):
    """The values of a file with more than 8 bits.

    Attributes:
        array: (H, W, bands), in the dtype of the file.
        no_data: The value that means that there is no measurement; None if there is none.
    """

    array: NDArray[Any]
    no_data: float | None = None


class Picture:
    """An image file whose size is known and whose pixels are not decoded yet.

    Attributes:
        height: The height of the upright image, in pixels.
        width: The width of the upright image, in pixels.
        channels: The number of channels that `decode` returns; see `open_picture`.
        bands: The number of bands in the file. For a palette, it is that of its colours.
        held_pixels: The number of pixels of the largest part that the decoder allocates as a whole
            (the image, a tile or a frame), at up to 32 bytes each; at least height * width.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        size: tuple[int, int],
        *,
        name: str,
        channels: int,
        orientation: int,
        held_pixels: int,
        bands: int,
        read_values: Callable[[], Values] | None = None,
    ) -> None:
        """Keep the facts about the file.

        Args:
            read: Decodes the file at a reduction of 1, 2, 4 or 8, and turns it upright.
            size: Height and width as stored, in pixels.
            name: The name of the file, for error messages.
            channels: The number of channels that `read` returns.
            orientation: The EXIF orientation, 1 to 8.
            held_pixels: See the attribute.
            bands: See the attribute.
            read_values: See `values`.
        """
        self.channels, self.held_pixels, self.bands = channels, held_pixels, bands
        self._read_values = read_values
        self._read, self._name, self._orientation = read, name, orientation
        self.height, self.width = size[::-1] if orientation in (5, 6, 7, 8) else size

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width before EXIF turns the image, in pixels."""
        size = self.height, self.width
        return size[::-1] if self._orientation in (5, 6, 7, 8) else size

    @property
    def is_turned(self) -> bool:
        """True if the EXIF orientation turns or mirrors the stored pixels."""
        return self._orientation != 1

    def decode(self, reduction: int = 1) -> Tensor:
        """Decode the pixels.

        Args:
            reduction: 1, 2, 4 or 8. The sides of the returned image may be divided by this number,
                rounded up. JPEG decoders do this fast by leaving out the highest frequencies. The
                image is returned in full if the file is not a plain JPEG file; or if EXIF turns it,
                and its sides are not multiples of the number.

        Returns:
            uint8 (channels, H, W) in channels-last memory, the layout of decoders and networks.

        Raises:
            DataError: The file is damaged or cut short.
            MissingPackageError: A package is missing.
        """
        if self._orientation != 1 and (self.height % reduction or self.width % reduction):
            reduction = 1
        if min(self.height, self.width) < reduction:
            reduction = 1
        with our_errors(self._name):
            return self._read(reduction)

    def values(self) -> Values | None:
        """Decode the values in the full depth of the file, which `decode` reduces to 8 bits.

        Returns:
            The values, not turned upright. None if the file has 8 bits, or if its full depth cannot
            be read, as that of 16-bit colour TIFF without tifffile.

        Raises:
            DataError: The file is damaged or cut short.
            MissingPackageError: A package is missing.
        """
        if self._read_values is None:
            return None
        with our_errors(self._name):
            return self._read_values()


def open_picture(
    data: bytes,
    *,
    name: str,
    channels: int = 3,
    max_pixels: int,
    value_range: tuple[float, float] | None = None,
) -> Picture:
    """Read and check the header of an image file.

    Args:
        data: The content of the file.
        name: The name of the file, for error messages.
        channels: 3 for RGB or 1 for luma (ITU-R 601): transparent images are composited on white,
            and CMYK and palettes are converted. With any other number, the file must have exactly
            this number of bands, which are not converted, or of pages of one band. Only the first
            frame of an animation is used.
        max_pixels: The largest image that is decoded, and the largest tile or frame that its
            decoder may allocate, in pixels.
        value_range: The values that become 0 and 255 if the file has more than 8 bits; None for
            the rule of the module `values`. It has no effect on files of 8 bits.

    Returns:
        The picture, whose pixels are not decoded yet.

    Raises:
        DataError: The file is not an image that can be read, or has another number of bands.
        ImageSizeError: The image is too large.
        MissingPackageError: A package is missing.
    """
    assert channels >= 1, channels
    assert value_range is None or value_range[0] < value_range[1], value_range
    if not data:
        raise DataError(f"{name}: is empty. Expected an image.")
    if data.startswith(arrays.NPY):
        with our_errors(name, "NPY"):
            return _open_array(data, name, channels, max_pixels, value_range)
    kind = sniff(data)
    if kind is None or is_heic(data):
        refuse_unknown(data, name)
    with our_errors(name, kind):
        held = 0
        if kind in _PARTS:
            held = check_parts(_PARTS[kind](data, name), name, max_pixels)
        if kind == "TIFF" and _needs_stack(data, channels, value_range):
            return _open_stack(data, name, channels, max_pixels, value_range)
        opened = _open_by_pillow(data, kind, name)
        if opened is None:
            return _open_stack(data, name, channels, max_pixels, value_range)
        data, image = opened
        return _picture(data, image, name, channels, max_pixels, value_range, held)


def decode(
    data: bytes,
    *,
    name: str,
    channels: int = 3,
    max_pixels: int,
    value_range: tuple[float, float] | None = None,
) -> Tensor:
    """Return the pixels of an image file; see `open_picture` and `Picture.decode`."""
    picture = open_picture(
        data, name=name, channels=channels, max_pixels=max_pixels, value_range=value_range
    )
    return picture.decode()


def _open_array(
    data: bytes,
    name: str,
    channels: int,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> Picture:
    array = arrays.read_header(data, channels, name, max_pixels)

    def read(reduction: int) -> Tensor:
        values = arrays.values_of(data, array)
        return arrays.from_array(values, channels, value_range, name=name)

    def read_values() -> Values:
        return Values(arrays.values_of(data, array))

    return Picture(
        read,
        (array.shape.height, array.shape.width),
        name=name,
        channels=channels,
        orientation=1,
        held_pixels=array.held_pixels,
        bands=array.shape.bands,
        read_values=None if array.dtype in (np.uint8, np.bool_) else read_values,
    )


def _needs_stack(data: bytes, channels: int, value_range: tuple[float, float] | None) -> bool:
    if channels not in (1, 3) or tiff.is_out_of_pillows_reach(data):
        return True
    return value_range is not None and tiff.is_deep_colour(data)


def _open_stack(
    data: bytes,
    name: str,
    channels: int,
    max_pixels: int,
    value_range: tuple[float, float] | None,
) -> Picture:
    stack = stacks.Stack(data, channels, name, max_pixels)

    def read(reduction: int) -> Tensor:
        return arrays.from_array(
            stack.values(),
            channels,
            value_range,
            name=name,
            no_data=stack.no_data,
            orientation=stack.orientation,
        )

    return Picture(
        read,
        (stack.height, stack.width),
        name=name,
        channels=channels,
        orientation=stack.orientation,
        held_pixels=stack.held_pixels,
        bands=stack.bands,
        read_values=_values_of(stack) if stack.dtype not in (np.uint8, np.bool_) else None,
    )


def _values_of(stack: stacks.Stack) -> Callable[[], Values]:
    return lambda: Values(stack.values(), stack.no_data)


def _open_by_pillow(data: bytes, kind: str, name: str) -> tuple[bytes, ImageFile.ImageFile] | None:
    """Open a file with Pillow; return None for a TIFF file with a mode that Pillow lacks."""
    feature, version = _FEATURES.get(kind, ("", ""))
    if feature and not features.check(feature):
        raise DataError(
            f"{name}: is {kind}, for which the installed Pillow was built without support. "
            f"Install it with: pip install --upgrade 'pillow>={version}'"
        )
    if kind == "PNG":
        data = png.essence(data, name)
    try:
        image = Image.open(io.BytesIO(data), formats=(kind,))
        if kind == "TIFF":
            _read_sub_directories(image)
        return data, image
    except Exception:
        if kind == "TIFF" and tiff.is_deep(data):
            return None
        without = {"AVIF": avif.without_exif, "TIFF": tiff.without_exif}.get(kind)
        if without is None:
            raise
        changed = without(data)
        if changed == data:
            raise
    return changed, Image.open(io.BytesIO(changed), formats=(kind,))


def _read_sub_directories(image: ImageFile.ImageFile) -> None:
    """Read the directories that Pillow would read after the pixels, to find damage on opening."""
    exif = Image.Image.getexif(image)
    for tag in TiffTags.TAGS_V2_GROUPS:
        if tag in exif:
            exif.get_ifd(tag)


def _picture(
    data: bytes,
    image: ImageFile.ImageFile,
    name: str,
    channels: int,
    max_pixels: int,
    value_range: tuple[float, float] | None,
    held: int,
) -> Picture:
    # For TIFF, `size` is the upright size in newer versions of Pillow, and `_tile_size` the stored.
    width, height = getattr(image, "_tile_size", image.size)
    held = max(held, check_parts([Part("", width, height)], name, max_pixels))
    if image.format in ("JPEG", "MPO"):
        jpeg.check_scans(data, held, name, max_pixels)
    if is_slow(image) and held > _MAX_PIXELS_IN_PYTHON:
        raise DataError(
            f"{name}: has {held} px in text or run lengths, which take too long to read. Expected "
            f"at most {_MAX_PIXELS_IN_PYTHON} px; save it as PNG."
        )
    orientation = orientation_of(image)

    def read(reduction: int) -> Tensor:
        return _read(data, image, name, channels, value_range, orientation, reduction)

    return Picture(
        read,
        (height, width),
        name=name,
        channels=channels,
        orientation=orientation,
        held_pixels=held,
        bands=bands_of(image),
        read_values=_deep(data, image, name, channels, max_pixels),
    )


def _deep(
    data: bytes, image: ImageFile.ImageFile, name: str, channels: int, max_pixels: int
) -> Callable[[], Values] | None:
    """Return the function that reads the values of an open file; None if they have 8 bits."""
    if png.is_wide(image):
        return lambda: Values(png.wide_values(image, data, name))
    if is_ranged(image):
        return (lambda: Values(ranged_values(image, data)[0])) if largest(image) > 255 else None
    if is_deep(image):
        return lambda: Values(*deep_values(image))
    if image.format == "TIFF" and tiff.is_deep_colour(data) and find_spec("tifffile"):
        return lambda: _values_of(stacks.Stack(data, channels, name, max_pixels))()
    return None


def _read(
    data: bytes,
    image: ImageFile.ImageFile,
    name: str,
    channels: int,
    value_range: tuple[float, float] | None,
    orientation: int,
    reduction: int,
) -> Tensor:
    """Decode the pixels of a file that Pillow has opened."""
    if image.format in ("JPEG", "MPO"):
        if image.format == "JPEG" and image.mode in ("L", "RGB") and channels in (1, 3):
            pixels = jpeg.decode_fast(data, channels, image.size, reduction)
            if pixels is not None:
                return upright(pixels, orientation)
        loaded = jpeg.load(data, channels, reduction, name)
        return from_pillow(loaded, channels, value_range, name=name)
    if png.is_wide(image) and (value_range or channels not in (1, 3)):
        values = png.wide_values(image, data, name)
        return arrays.from_array(values, channels, value_range, name=name, orientation=orientation)
    if is_ranged(image):
        return _from_pnm(image, data, name, channels, value_range)
    return from_pillow(image, channels, value_range, name=name)


def _from_pnm(
    image: ImageFile.ImageFile,
    data: bytes,
    name: str,
    channels: int,
    value_range: tuple[float, float] | None,
) -> Tensor:
    values, top = ranged_values(image, data)
    if value_range and top > 255:
        return arrays.from_array(values, channels, value_range, name=name)
    pixels = np.empty(values.shape, np.uint8)
    for row, stored in enumerate(values):
        if top > 255 and values.shape[2] == 1:  # in two steps, with the rounding of Pillow
            pixels[row] = ((stored / top * 65535).round() / 257).round().clip(0, 255)
        else:
            pixels[row] = (stored / top * 255).round().clip(0, 255)
    return arrays.from_array(pixels, channels, None, name=name)
