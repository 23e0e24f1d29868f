"""Bytes of an image file to pixels, upright and with the asked number of channels.

Plain JPEG files go through simplejpeg where it is installed, everything else through Pillow. Both use libjpeg-turbo's exact
settings, so they agree within rounding. What cannot be read is a DataError with the file's name; the size is checked before any
pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convnextv2.errors import DataError

try:
    import simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None
else:
    _simplejpeg = simplejpeg

_ORIENTATION = 0x0112  # EXIF tag


def decode(data: bytes, *, name: str, channels: int = 3, max_pixels: int) -> Tensor:
    """uint8 (channels, H, W), turned upright as EXIF says.

    channels: 3 for RGB; 1 for luma (ITU-R 601). Transparent images are laid on white, CMYK and palettes converted, 16-bit grey is
    divided by 257, other deeper values are scaled from their own range; of an animation the first frame counts.
    name: for messages. max_pixels: the largest image that is decoded. Raises DataError."""
    assert channels in (1, 3), channels
    if not data:
        raise DataError(f"{name}: is empty. Expected an image.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on size and EXIF: ours are errors
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise DataError(f"{name}: {image.width} x {image.height} px are more than max_image_pixels = {max_pixels}.")
                # Pillow alone decodes scans of CMYK and odd colour spaces; reading the header here has decoded no pixel.
                if _simplejpeg and image.format == "JPEG" and image.mode in ("L", "RGB"):
                    pixels = _decode_jpeg(data, channels)
                    return _upright(pixels, image.getexif().get(_ORIENTATION, 1))
                return _from_pillow(ImageOps.exif_transpose(image), channels)
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(
                f"{name}: has more pixels than max_image_pixels = {max_pixels}, or than Pillow allows ({error})."
            ) from None
        except UnidentifiedImageError:
            raise DataError(f"{name}: is not an image, or of a format that Pillow does not read.") from None
        except Exception as error:  # decoders raise many kinds (OSError, ValueError, SyntaxError, struct.error) for damaged files
            raise DataError(f"{name}: is damaged or truncated ({error}).") from error


def _decode_jpeg(data: bytes, channels: int) -> Tensor:
    assert _simplejpeg is not None
    space = "RGB" if channels == 3 else "GRAY"
    # strict: a truncated file is an error, not a picture that is grey from the middle on.
    array = _simplejpeg.decode_jpeg(data, colorspace=space, fastdct=False, fastupsample=False, strict=True)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """Undo the EXIF orientation (1 to 8) of (C, H, W)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    return pixels.contiguous()


def _from_pillow(image: Image.Image, channels: int) -> Tensor:
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).permute(2, 0, 1).contiguous()


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
