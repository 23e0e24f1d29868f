"""Run-length codes of masks in the format of COCO, encoded and decoded by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convnextv2.errors import MissingPackageError

EXTRA = "detection"
"""The extra of this package that installs the codec."""


class Rle(NamedTuple):
    """A mask of an image as a run-length code.

    Attributes:
        counts: The code in the compressed form of COCO.
        size: Height and width of the mask.
    """

    counts: bytes
    size: tuple[int, int]


Polygons = tuple[NDArray[np.float64], ...]
"""The outlines of one object, each float64 (k, 2) of x and y in px. Together they are its mask."""

Region = Polygons | Rle | None
"""The area of an object, as polygons or a run-length code; None if only its box is known."""


def check_codec() -> None:
    """Check that the codec is installed.

    Raises:
        MissingPackageError: The package faster-coco-eval is missing.
    """
    _codec()


def encode(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> Rle:
    """Encode a mask (H, W). All values except 0 belong to the object."""
    packed = _codec().encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return Rle(_bytes(packed["counts"]), (int(mask.shape[0]), int(mask.shape[1])))


def encode_within(mask: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> Rle:
    """Encode a mask that is 0 outside a small part, in a time that depends on that part alone.

    Args:
        mask: bool (h, w), the part.
        corner: The top and left of the part.
        size: Height and width of the whole mask.
    """
    columns = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))
    edges = np.diff(columns, axis=1)
    at = (np.arange(mask.shape[1])[:, None] + corner[1]) * size[0] + corner[0]
    at = at + np.arange(mask.shape[0] + 1)
    starts, ends = at[edges > 0], at[edges < 0]
    apart = starts[1:] != ends[:-1]  # a run may continue in the next column
    starts = np.concatenate([starts[:1], starts[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    places = np.stack([starts, ends], 1).ravel()
    runs = np.diff(np.concatenate([[0], places, [size[0] * size[1]]])).tolist()
    return from_counts(runs if runs[-1] or len(runs) == 1 else runs[:-1], size)


def decode(rle: Rle) -> NDArray[np.uint8]:
    """Decode a mask to uint8 (H, W) of 0 and 1.

    Raises:
        ValueError: The runs do not add up to the size.
    """
    mask: NDArray[np.uint8] = _codec().decode(_coco(rle))
    return mask


def from_counts(counts: Sequence[int], size: tuple[int, int]) -> Rle:
    """Build a code from the lengths of its runs, column by column, beginning with a run of 0.

    Raises:
        ValueError: The runs do not add up to the size.
    """
    runs = [int(count) for count in counts]
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError("the runs do not add up to the size")
    packed = _codec().frPyObjects({"counts": runs, "size": list(size)}, *size)
    return Rle(_bytes(packed["counts"]), size)


def is_whole(rle: Rle) -> bool:
    """Return whether the runs of a code add up to its size.

    This must be checked first, because decoders in C write beyond the mask if a code is damaged.
    """
    total, at, runs = 0, 0, list[int]()
    code = rle.counts
    while at < len(code):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(code) or not 48 <= code[at] < 112 or shift > 30:
                return False
            part = code[at] - 48
            value |= (part & 31) << shift
            more, at, shift = bool(part & 32), at + 1, shift + 5
            if not more and part & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return False
        total += runs[-1]
    return total == rle.size[0] * rle.size[1]


def from_polygons(polygons: Polygons, size: tuple[int, int]) -> Rle:
    """Rasterise the polygons of an object to one mask, as COCO does.

    Args:
        polygons: At least one polygon, each with three points or more. They are clipped at the
            edges of the mask.
        size: Height and width of the mask.
    """
    codec = _codec()
    parts = codec.frPyObjects([polygon.reshape(-1).tolist() for polygon in polygons], *size)
    merged = codec.merge(parts)
    return Rle(_bytes(merged["counts"]), size)


def box_of(rle: Rle) -> NDArray[np.float64]:
    """Return the bounding box of a mask, float64 (4,): x0, y0, x1, y1; zeros if it is empty."""
    x, y, width, height = np.asarray(_codec().toBbox(_coco(rle)), np.float64).reshape(4).tolist()
    return np.array([x, y, x + width, y + height])


def area_of(rle: Rle) -> int:
    """Count the pixels of a mask."""
    return int(np.asarray(_codec().area(_coco(rle))).reshape(-1)[0])


def to_json(rle: Rle) -> dict[str, Any]:
    """Return a code in the form of COCO's JSON."""
    return {"size": list(rle.size), "counts": rle.counts.decode("ascii")}


def _coco(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts}


def _bytes(counts: bytes | str) -> bytes:
    return counts.encode("ascii") if isinstance(counts, str) else counts


def _codec() -> Any:
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise MissingPackageError("faster-coco-eval", EXTRA) from None
    return mask
