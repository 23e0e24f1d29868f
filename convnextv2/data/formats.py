"""The image formats that are read, and the file endings that follow from them.

Needs no PyTorch, so that listing a folder stays cheap.
"""

from __future__ import annotations

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is read through Pillow, by content. Other formats that it knows are no photographs, and
some run other programs (EPS)."""

# JPEG: names that browsers and cameras give. BMP: device-independent bitmaps, which have its
# header in practice. AVIF: Pillow names these only where it was built with libavif.
_OTHERS = (".pjpeg", ".pjp", ".mpo", ".dib", ".btf", ".tf8", ".avif", ".avifs", ".npy")


def _suffixes() -> frozenset[str]:
    Image.init()  # fills the registry
    known = (end for end, format in Image.registered_extensions().items() if format in FORMATS)
    return frozenset(end.lower() for end in (*known, *_OTHERS))


SUFFIXES = _suffixes()
"""Endings of the files that are read, in lower case with the dot; compare in lower case."""
