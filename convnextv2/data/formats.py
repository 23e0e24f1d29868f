"""The image formats that are read, and the file endings that follow from them.

It needs no PyTorch, so that listing a folder stays cheap. `data.decode.picture` decodes them. A
format whose decoder holds more than its header tells also belongs to `_PARTS` there.
"""

from __future__ import annotations

import re

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is read through Pillow, by content. Other formats that it knows are not photographs, and
some run other programs (EPS)."""

# JPEG: names that browsers and cameras give. BMP: device-independent bitmaps, which have its
# header in practice. AVIF: Pillow names these only if it was built with libavif.
_OTHERS = (".pjpeg", ".pjp", ".mpo", ".dib", ".btf", ".tf8", ".avif", ".avifs", ".npy")


def _suffixes() -> frozenset[str]:
    Image.init()  # fills the registry
    known = (end for end, format in Image.registered_extensions().items() if format in FORMATS)
    return frozenset(end.lower() for end in (*known, *_OTHERS))


SUFFIXES = _suffixes()
"""Endings of the files that are read, in lower case with the dot; compare in lower case."""


def sniff(data: bytes) -> str | None:
    """Return the format of a file by its first bytes, or None if it is none of FORMATS."""
    for format, mark in _MARKS.items():
        if mark.match(data):
            return format
    return None


_MARKS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBPVP8[ XL]", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0"),
    "PPM": re.compile(rb"P[0-6fy]"),
    "AVIF": re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL),
    "JPEG2000": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
}
