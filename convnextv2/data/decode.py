"""Bytes of an image file to pixels, upright and with the asked number of channels.

Plain JPEG files go through simplejpeg where it is installed, everything else through Pillow. Both use libjpeg-turbo's exact
settings, so they agree within rounding. What cannot be read is a DataError with the file's name; the size is checked before any
pixel is decoded.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from convnextv2.data.formats import FORMATS, SUFFIXES
from convnextv2.errors import DataError, ImageSizeError

try:
    import simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None
else:
    _simplejpeg = simplejpeg

_ORIENTATION = 0x0112  # EXIF tag

_MAX_SCANS = 100
"""Of a JPEG file; encoders write about ten. A scan of a few bytes makes the decoder go through the whole image once more, so a
small file can keep it busy for hours: "Two Issues with the JPEG Standard" by libjpeg-turbo's authors, who advise such a limit."""
_MAX_SEGMENTS = 10_000
# Not the bytes and restarts that belong to a scan's data, nor markers that no length follows.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")

__all__ = ["FORMATS", "SUFFIXES", "Picture", "decode", "from_pillow", "open_picture"]

_STRIP_PIXELS = 1 << 20



class Picture:
    """An image file whose size is known and whose pixels are not decoded yet.

    height, width: in px, upright as EXIF says. channels: that `decode` returns, see `open_picture`."""

    def __init__(
        self,
        data: bytes,
        image: Image.Image,
        *,
        name: str,
        channels: int,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.channels = channels
        self._value_range = value_range
        self._data, self._image, self._name = data, image, name
        self._orientation = image.getexif().get(_ORIENTATION, 1)
        turned = self._orientation in (5, 6, 7, 8)
        self.height, self.width = image.size if turned else image.size[::-1]

    def decode(self, reduction: int = 1) -> Tensor:
        """uint8 (channels, H, W). A view of channels-last memory, which is what decoders write and the network reads.

        reduction: 2, 4 or 8 permits sides of that part, rounded up, which JPEG decoders give away cheaply (its inverse transform
        leaves out the highest frequencies); not where a turned image would begin with a part of a pixel. Raises DataError."""
        if self._orientation != 1 and (self.height % reduction or self.width % reduction):
            reduction = 1
        with _our_errors(self._name):
            # Pillow alone decodes scans of CMYK and odd colour spaces.
            is_plain = self._image.format == "JPEG" and self._image.mode in ("L", "RGB")
            if _simplejpeg and is_plain and self.channels in (1, 3):
                return _upright(_decode_jpeg(self._data, self.channels, self._image.size, reduction), self._orientation)
            return from_pillow(self._image, self.channels, self._value_range, name=self._name)


def open_picture(
    data: bytes,
    *,
    name: str,
    channels: int = 3,
    max_pixels: int,
    value_range: tuple[float, float] | None = None,
) -> Picture:
    """Read an image file's header.

    channels: 3 for RGB; 1 for luma (ITU-R 601). Transparent images are laid on white, CMYK and palettes converted, 16-bit grey is
    divided by 257, other deeper values are scaled from their own range; of an animation the first frame counts.
    Any other number: the file must have exactly so many bands, which are taken as they are.
    name: for messages. max_pixels: the largest image that is decoded. value_range: the values that become 0 and 255 where the
    file is deeper than 8 bits. Raises DataError."""
    assert channels >= 1, channels
    if not data:
        raise DataError(f"{name}: is empty. Expected an image.")
    with _our_errors(name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageSizeError(f"{name}: {image.width} x {image.height} px are more than max_image_pixels = {max_pixels}.")
        _check_scans(data, image, name)
        return Picture(data, image, name=name, channels=channels, value_range=value_range)


def decode(
    data: bytes,
    *,
    name: str,
    channels: int = 3,
    max_pixels: int,
    value_range: tuple[float, float] | None = None,
) -> Tensor:
    """The pixels of an image file; see `open_picture` and `Picture.decode`."""
    picture = open_picture(
        data, name=name, channels=channels, max_pixels=max_pixels, value_range=value_range
    )
    return picture.decode()


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    """What decoders raise, as a DataError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on size and EXIF: ours are errors
        try:
            yield
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageSizeError(f"{name}: has more pixels than max_image_pixels, or than Pillow allows ({error}).") from None
        except UnidentifiedImageError:
            raise DataError(f"{name}: is not an image, or of a format that is not read ({', '.join(FORMATS)}).") from None
        except Exception as error:  # decoders raise many kinds (OSError, ValueError, SyntaxError, struct.error) for damaged files
            raise DataError(f"{name}: is damaged or truncated ({error}).") from error


def _decode_jpeg(data: bytes, channels: int, size: tuple[int, int], reduction: int) -> Tensor:
    assert _simplejpeg is not None
    space = "RGB" if channels == 3 else "GRAY"
    width, height = (-(-side // reduction) if reduction > 1 else 0 for side in size)
    # strict: a truncated file is an error, not a picture that is grey from the middle on.
    array = _simplejpeg.decode_jpeg(
        data, colorspace=space, fastdct=False, fastupsample=False, min_height=height, min_width=width, strict=True
    )
    return torch.from_numpy(array).permute(2, 0, 1)


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """Undo the EXIF orientation (1 to 8) of (C, H, W)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    return pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def from_pillow(
    image: Image.Image,
    channels: int,
    value_range: tuple[float, float] | None = None,
    *,
    name: str = "image",
) -> Tensor:
    """The pixels of an open Pillow image, upright, uint8 (channels, H, W), by the rules of `open_picture`."""
    image.load()  # of TIFF, this turns it, and takes the orientation away
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
    is_deep = image.mode.startswith("I") or image.mode == "F"
    low, high = (value_range or _range(image)) if is_deep else (0.0, 0.0)
    bands = len(image.getbands())
    if channels not in (1, 3) and bands != channels:
        raise DataError(
            f"{name}: has {bands} channels, expected {channels} (in_channels)."
        )
    pixels = np.empty((height, width, channels), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):  # what is computed on the way takes several times the memory of the pixels
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        if is_deep:
            grey = (np.asarray(strip, dtype=np.float64) - low) * (255 / max(high - low, 1e-12))
            pixels[top:bottom] = grey.round().clip(0, 255)[..., None]
            continue
        if channels not in (1, 3):
            pixels[top:bottom] = np.asarray(strip)
            continue
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        pixels[top:bottom] = np.asarray(strip.convert("RGB" if channels == 3 else "L")).reshape(bottom - top, width, channels)
    return _upright(torch.from_numpy(pixels).permute(2, 0, 1), orientation)


def _range(image: Image.Image) -> tuple[float, float]:
    """What becomes 0 and 255: of grey of 16 bits (I;16 and its kin, and I where nothing is above 65535) its full range; of other
    integers and floats their own."""
    if image.mode.startswith("I;"):
        return 0.0, 65535.0
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "I" and 0 <= low and high <= 65535:
        return 0.0, 65535.0
    if 0 <= low and high <= 1:
        return 0.0, 1.0
    return low, high


def _check_scans(data: bytes, image: Image.Image, name: str) -> None:
    """Refuse JPEG data that would take for ever."""
    if image.format == "TIFF":
        strips = image.tag_v2.get(273) or image.tag_v2.get(324) or ()  # type: ignore[attr-defined]  # offsets of strips, tiles
        is_jpeg = image.info.get("compression") in ("jpeg", "tiff_jpeg")
        too_many = is_jpeg and data.count(b"\xff\xda") > _MAX_SCANS * max(1, len(strips))
    else:  # the quick count includes what follows the image, such as a film
        too_many = image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > _MAX_SCANS and _has_many_scans(data)
    if too_many:
        raise DataError(f"{name}: has more than {_MAX_SCANS} scans, which no camera or program writes. Save it anew.")


def _has_many_scans(jpeg: bytes) -> bool:
    scans, at = 0, 2
    for _ in range(_MAX_SEGMENTS):
        marker = _MARKER.search(jpeg, at)
        if marker is None or marker[1] == b"\xd9":  # the image's end
            return False
        scans += marker[1] == b"\xda"
        if scans > _MAX_SCANS:
            return True
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return True
