"""The image formats that are read, and their file endings.

This module does not import PyTorch, so that listing a folder stays fast. `data.decode.picture`
decodes the files. If the decoder of a new format allocates more than the header states, the format
must also be added to `_PARTS` there.
"""

from __future__ import annotations

import re

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats that Pillow decodes for us. A file is recognised by its content. Most other formats
of Pillow are not for photographs, and some run other programs (EPS)."""

# .pjpeg to .mpo are JPEG files of browsers and cameras. .dib files have the header of BMP in
# practice. Pillow lists .avif and .avifs only if it was built with libavif.
_OTHERS = (".pjpeg", ".pjp", ".mpo", ".dib", ".btf", ".tf8", ".avif", ".avifs", ".npy")


def _suffixes() -> frozenset[str]:
    Image.init()  # fills the registry
    known = (end for end, format in Image.registered_extensions().items() if format in FORMATS)
    return frozenset(end.lower() for end in (*known, *_OTHERS))


SUFFIXES = _suffixes()
"""The endings of the files that are read, in lower case, with the dot."""


MAP_ENDS = (
    *("_mask", "-mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_labelids"),
    *("_gt", "_gtfine_labelids", "_annotation", "_matte"),
    *("_labeltrainids", "_gtfine_labeltrainids"),
)
"""The endings, in lower case, by which the name of a label map differs from that of the image
beside it."""


def sniff(data: bytes) -> str | None:
    """Return the format of a file by its first bytes; None if it is none of FORMATS."""
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
