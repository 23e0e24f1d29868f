"""Turns what decoders raise into errors of this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from PIL import Image, UnidentifiedImageError

from convnextv2.data.formats import FORMATS
from convnextv2.errors import ConvNeXtV2Error, DataError, ImageSizeError

# Pillow remarks on sizes and on EXIF; ours are errors. Once for the process, since
# `warnings.catch_warnings` changes what other threads see, and decoders run in several.
warnings.filterwarnings("ignore", module=r"PIL\b")


@contextmanager
def our_errors(name: str, kind: str = "image") -> Iterator[None]:
    """Turn whatever a decoder raises into a DataError of one line.

    Args:
        name: The file, for the message.
        kind: Its format, if that is known.
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
        # Decoders raise many kinds (OSError, ValueError, SyntaxError, struct.error), and some
        # put the file's bytes or lines of their own into the text.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: is damaged or truncated ({reason}).") from error


def is_heic(data: bytes) -> bool:
    """Return whether a file is a HEIC image, by the brands that it names."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"}


def refuse_unknown(data: bytes, name: str) -> NoReturn:
    """Say what a file of no known format is, if that can be seen.

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
