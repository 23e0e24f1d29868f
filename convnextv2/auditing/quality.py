"""Images that stand out by their brightness, sharpness, shape or channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from convnextv2.auditing.findings import Finding
from convnextv2.auditing.images import Images
from convnextv2.auditing.scan import Look

DARK = 0.2
"""An image is dark if its 95th percentile of luma is below this."""
BRIGHT = 0.95
"""An image is bright if its 5th percentile of luma is above this."""
FLAT = 0.02
"""An image is flat if its 5th and 95th percentiles of luma differ by less than this."""
BLURRED = 0.5
"""An image with less blur than this is never reported as blurred; see `scan.blur_of`."""
_DEVIATIONS = 5
"""A value stands out if it is more than this many robust standard deviations above the median."""
_RATIO = 3.0
"""An image has an odd shape if its aspect ratio differs from the median by more than this
factor."""
_SIZES = 6.0
"""An image has an odd size if its shorter side differs from the median by at least this factor."""
_MAX_ODD = 0.05
"""The largest share of images that can count as odd. A property of more images is normal here."""
_COLOURLESS = 6
"""Largest difference of red, green and blue in an image without colour, in levels (0 to 255)."""


def odd_images(images: Images, looks: Sequence[Look]) -> list[Finding]:
    """Find images that stand out.

    Brightness is judged by fixed thresholds, everything else by comparison with the other images: a
    set of panoramas is not odd as a whole.

    Args:
        images: The images.
        looks: The result of the scan of each image.
    """
    good = [i for i, look in enumerate(looks) if not look.error]
    if not good:
        return []
    found = list(_light(good, looks))
    found += _blurred(good, looks)
    found += _shapes(good, looks)
    found += _channels(good, looks)
    return [
        Finding(kind, images.paths[i], images.splits[i], images.label_of(i), detail, score=score)
        for kind, i, detail, score in found
    ]


_Found = Iterator[tuple[str, int, str, float]]


def _light(good: Sequence[int], looks: Sequence[Look]) -> _Found:
    for i in good:
        high, low = looks[i].high_luma, looks[i].low_luma
        if high - low < FLAT:
            span = f"{high - low:.0%} of full brightness"
            yield "flat", i, f"90 % of the pixels lie in a range of {span}", low
        elif high < DARK:
            yield "dark", i, f"95 % of the pixels are below {high:.0%} of full brightness", high
        elif low > BRIGHT:
            yield "bright", i, f"95 % of the pixels are above {low:.0%} of full brightness", low


def _blurred(good: Sequence[int], looks: Sequence[Look]) -> _Found:
    blur = np.array([looks[i].blur for i in good])
    limit = max(BLURRED, _upper(blur[blur > 0]))
    for i, value in zip(good, blur.tolist(), strict=True):
        if value > limit:
            yield "blurred", i, f"blur {value:.2f}, usual {np.median(blur):.2f}", value


def _upper(values: NDArray[np.float64]) -> float:
    """Return the limit above which a value stands out, from the median absolute deviation."""
    if not len(values):
        return 0.0
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))  # of a normal distribution
    return middle + _DEVIATIONS * spread


def _shapes(good: Sequence[int], looks: Sequence[Look]) -> _Found:
    heights = np.array([looks[i].height for i in good], np.float64)
    widths = np.array([looks[i].width for i in good], np.float64)
    ratio = np.log(widths / heights)
    usual = float(np.median(ratio))
    sides = np.minimum(heights, widths)
    middle = float(np.median(sides))
    for place, i in enumerate(good):
        size = f"{widths[place]:.0f} x {heights[place]:.0f} px"
        if abs(ratio[place] - usual) > np.log(_RATIO):
            shape = float(np.exp(ratio[place]))
            yield "odd_shape", i, f"{size}; width / height is usually {np.exp(usual):.2f}", shape
        if not middle / _SIZES < sides[place] < middle * _SIZES:
            detail = f"{size}; the shorter side is usually {middle:.0f} px"
            yield "odd_size", i, detail, float(sides[place])


def _channels(good: Sequence[int], looks: Sequence[Look]) -> _Found:
    bands = Counter(looks[i].bands for i in good)
    usual, many = bands.most_common(1)[0]
    most = _MAX_ODD * len(good)
    if len(good) - many <= most:
        for i in good:
            if looks[i].bands != usual:
                detail = f"{looks[i].bands} bands, usually {usual}"
                yield "odd_channels", i, detail, float(looks[i].bands)
    grey = [i for i in good if looks[i].bands >= 3 and _is_grey(looks[i])]
    if len(grey) <= most:
        for i in grey:
            yield "odd_channels", i, "has no colour, though it has colour bands", 0.0


def _is_grey(look: Look) -> bool:
    assert look.small is not None
    pixels = look.small.astype(np.int16)
    is_flat = look.high_luma - look.low_luma < FLAT  # flat images are reported already
    return bool((pixels.max(-1) - pixels.min(-1)).max() <= _COLOURLESS) and not is_flat
