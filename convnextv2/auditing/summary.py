"""Statistics of a data set: images by class and split, sizes and formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from convnextv2.auditing.images import Images
from convnextv2.auditing.scan import Look


class ClassCount(NamedTuple):
    """The number of images, objects or pixels of one class.

    Attributes:
        name: The class.
        images: Split -> number of images that have it.
        amounts: Split -> number of objects, or of pixels; empty for classification.
    """

    name: str
    images: dict[str, int]
    amounts: dict[str, int]


class Summary(NamedTuple):
    """Statistics of a data set.

    Attributes:
        splits: Split -> number of images.
        classes: The counts of each class.
        widths: Smallest, median and largest width, in px.
        heights: Smallest, median and largest height, in px.
        formats: Format -> number of files.
        bands: Number of bands -> number of files.
        file_bytes: Size of all files, in bytes.
    """

    splits: dict[str, int]
    classes: list[ClassCount]
    widths: tuple[int, float, int]
    heights: tuple[int, float, int]
    formats: dict[str, int]
    bands: dict[int, int]
    file_bytes: int

    def as_record(self) -> dict[str, Any]:
        """Return the statistics as entries of audit.json."""
        return {
            "splits": self.splits,
            "classes": [each._asdict() for each in self.classes],
            "width": _three(self.widths),
            "height": _three(self.heights),
            "formats": self.formats,
            "bands": {str(bands): count for bands, count in self.bands.items()},
            "file_bytes": self.file_bytes,
        }


def summarise(images: Images, looks: Sequence[Look]) -> Summary:
    """Compute the statistics of a data set. Unreadable images have no size, format or bands."""
    good = [look for look in looks if not look.error]
    of = np.array(images.splits, dtype=object)
    splits = {split: int((of == split).sum()) for split in images.split_names}
    classes = []
    for k, name in enumerate(images.class_names):
        has = _has(images, k)
        by_split = {split: int(has[of == split].sum()) for split in splits}
        amounts: dict[str, int] = {}
        if images.amounts is not None:
            amounts = {split: int(images.amounts[of == split, k].sum()) for split in splits}
        classes.append(ClassCount(name, by_split, amounts))
    return Summary(
        splits,
        classes,
        _span([look.width for look in good]),
        _span([look.height for look in good]),
        dict(Counter(look.format for look in good).most_common()),
        dict(sorted(Counter(look.bands for look in good).items())),
        sum(look.file_bytes for look in looks),
    )


def _has(images: Images, k: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which images have a class, bool (N,)."""
    assert images.targets is not None
    if images.targets.ndim == 1:
        return np.asarray(images.targets == k)
    return np.asarray(images.targets[:, k] == 1)


def _span(sides: Sequence[int]) -> tuple[int, float, int]:
    return (min(sides), float(np.median(sides)), max(sides)) if sides else (0, 0.0, 0)


def _three(span: tuple[int, float, int]) -> dict[str, float]:
    return dict(zip(("min", "median", "max"), span, strict=True))
