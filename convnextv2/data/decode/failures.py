"""Turns the errors of decoders into errors of this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from PIL import Image, UnidentifiedImageError

from convnextv2.data.formats import FORMATS
from convnextv2.errors import ConvNeXtV2Error, DataError, ImageSizeError

# Pillow warns about sizes and EXIF, which are errors here. The filter is set once for the process,
# since `warnings.catch_warnings` is not thread-safe, and decoders run in several threads.
warnings.filterwarnings("ignore", module=r"PIL\b")


@contextmanager
def our_errors(name: str, kind: str = "image") -> Iterator[None]:
    """Turn any error of a decoder into a DataError with a message of one line.

    Args:
        name: The name of the file, for the message.
        kind: The format of the file, if it is known.
    """
    try:
        yield
    except ConvNeXtV2Error:
        raise
    except Image.DecompressionBombError as error:
        raise ImageSizeError(
            f"{name}: has more pixels than max_image_pixels, or than Pillow allows ({error})."
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{name}: is a damaged or truncated {kind} file: its header cannot be read."
        ) from None
    except Exception as error:
        # Decoders raise errors of many types (OSError, ValueError, SyntaxError, struct.error), and
        # the messages of some have several lines.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: is damaged or truncated ({reason}).") from error


def is_heic(data: bytes) -> bool:
    """Return whether a file is a HEIC image, by its brands."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"}


def refuse_unknown(data: bytes, name: str) -> NoReturn:
    """Raise the error for a file of an unknown format, with a remedy for HEIC.

    Raises:
        DataError: Always.
    """
    if is_heic(data):
        raise DataError(
            f"{name}: is a HEIC image, which is not read. Convert it to JPEG, for example with: "
            "heif-convert photo.heic photo.jpg"
        )
    raise DataError(
        f"{name}: is not an image, or of a format that is not read "
        f"({', '.join((*FORMATS, 'NPY'))})."
    )


_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
