"""Scales values with more than 8 bits to pixels.

NaN and the no-data value of the file become 0. All other values are scaled so that a range becomes
0 to 255, and values outside the range, including infinities, are clipped. If no range is given, it
is:

- 0 to 65535 for uint16, and for other integers of 16 or more bits if all lie in that range;
- otherwise 0 to 1 if all values lie in that range;
- otherwise the smallest and the largest finite value of the image, over all channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.errors import DataError

STRIP_VALUES = 1 << 20
"""The number of values that are scaled at a time, because float64 takes 8 times their memory."""

_LARGEST = 8e307  # so that differences stay finite


def to_pixels(
    read: Callable[[slice], NDArray[Any]],
    out: NDArray[np.uint8],
    *,
    value_range: tuple[float, float] | None,
    no_data: float | None,
    name: str,
) -> None:
    """Scale the values of an image, strip by strip.

    Args:
        read: Returns some rows of the image, (h, W) or (h, W, C), of any real dtype.
        out: uint8 (H, W, C), to which the pixels are written. Values (h, W) are used for all
            channels.
        value_range: The values that become 0 and 255; None for the rule of this module.
        no_data: The value that means that there is no measurement; None if there is none.
        name: The name of the file, for the message.

    Raises:
        DataError: All values are NaN, infinite or no data.
    """
    height = len(out)
    rows = max(1, STRIP_VALUES // (out.shape[1] * out.shape[2]))
    strips = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
    low, high = value_range or _range(read, strips, no_data, name)
    factor = 255 / max(high - low, 1e-12)
    for strip in strips:
        values = read(strip)
        is_empty = is_no_data(values, no_data)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = ((values.astype(np.float64) - low) * factor).round().clip(0, 255)
        scaled[is_empty] = 0
        out[strip] = scaled if scaled.ndim == 3 else scaled[..., None]


def is_no_data(values: NDArray[Any], no_data: float | None) -> NDArray[np.bool_]:
    """Return a mask of the values that are NaN or the no-data value."""
    is_empty = np.isnan(values)
    if no_data is not None:
        with np.errstate(over="ignore"):
            same = np.float32(no_data) if values.dtype == np.float32 else no_data
        is_empty |= values == same
    return is_empty


def _range(
    read: Callable[[slice], NDArray[Any]],
    strips: list[slice],
    no_data: float | None,
    name: str,
) -> tuple[float, float]:
    kind = read(slice(0, 1)).dtype
    is_fixed = kind.kind == "u" and kind.itemsize == 2
    if is_fixed and no_data is None:
        return 0.0, 65535.0
    lows, highs = [], []
    for strip in strips:
        values = read(strip)
        counted = values[np.isfinite(values) & ~is_no_data(values, no_data)]
        if counted.size:
            lows.append(float(counted.min()))
            highs.append(float(counted.max()))
    if not lows:
        raise DataError(f"{name}: has no finite value; all of it is NaN, infinite or no data.")
    low, high = max(min(lows), -_LARGEST), min(max(highs), _LARGEST)
    if is_fixed or (kind.kind in "iu" and kind.itemsize > 1 and 0 <= low and high <= 65535):
        return 0.0, 65535.0
    return (0.0, 1.0) if 0 <= low and high <= 1 else (low, high)
