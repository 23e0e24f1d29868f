"""Bytes of an image file to pixels, upright and with the asked number of channels.

Plain JPEG files go through simplejpeg where it is installed, everything else through Pillow. Both use libjpeg-turbo's exact
settings, so they agree within rounding. What cannot be read is a DataError with the file's name; the size is checked before any
pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convnextv2.errors import DataError, ImageSizeError

try:
    import simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None
else:
    _simplejpeg = simplejpeg

_ORIENTATION = 0x0112  # EXIF tag

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is read, by content. Others that Pillow knows are no photographs, and some run other programs (EPS)."""


class Picture:
    """An image file whose size is known and whose pixels are not decoded yet.

    height, width: in px, upright as EXIF says. channels: that `decode` returns, see `open_picture`."""

    def __init__(self, data: bytes, image: Image.Image, *, name: str, channels: int) -> None:
        self.channels = channels
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
            if _simplejpeg and self._image.format == "JPEG" and self._image.mode in ("L", "RGB"):
                return _upright(_decode_jpeg(self._data, self.channels, self._image.size, reduction), self._orientation)
            return from_pillow(self._image, self.channels)


def open_picture(data: bytes, *, name: str, channels: int = 3, max_pixels: int) -> Picture:
    """Read an image file's header.

    channels: 3 for RGB; 1 for luma (ITU-R 601). Transparent images are laid on white, CMYK and palettes converted, 16-bit grey is
    divided by 257, other deeper values are scaled from their own range; of an animation the first frame counts.
    name: for messages. max_pixels: the largest image that is decoded. Raises DataError."""
    assert channels in (1, 3), channels
    if not data:
        raise DataError(f"{name}: is empty. Expected an image.")
    with _our_errors(name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageSizeError(f"{name}: {image.width} x {image.height} px are more than max_image_pixels = {max_pixels}.")
        return Picture(data, image, name=name, channels=channels)


def decode(data: bytes, *, name: str, channels: int = 3, max_pixels: int) -> Tensor:
    """The pixels of an image file; see `open_picture` and `Picture.decode`."""
    return open_picture(data, name=name, channels=channels, max_pixels=max_pixels).decode()


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


def from_pillow(image: Image.Image, channels: int) -> Tensor:
    """The pixels of an open Pillow image, upright, uint8 (channels, H, W), by the rules of `open_picture`."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (I;16 and its kin, and I where nothing is above 65535) by its full range; other integers and floats by
    their own range."""
    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and 0 <= low and high <= 65535:
        low, high = 0.0, 65535.0
    elif 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
