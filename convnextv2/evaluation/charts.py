"""Charts as inline SVG, with text, axes and direct labels.

Colours come from the style sheet of the page, by class.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

WIDTH, HEIGHT = 370, 256
LEFT, RIGHT, TOP, BOTTOM = 42, 288, 26, 212
"""The frame of the data. The labels of the lines are to the right of it."""
MAX_POINTS = 240
LABEL_HEIGHT, LINE_HEIGHT = 31, 14
LABEL_LETTERS = 10
"""The number of letters that fit to the right of the frame. Longer labels are wrapped."""

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line in a chart.

    Attributes:
        name: The label of the line.
        points: Its points, in order of x.
        tone: "strong" or "soft", the visual weight of the line.
    """

    name: str
    points: Sequence[Point]
    tone: str = "strong"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    y_format: Format,
    mark: tuple[Point, str] | None = None,
    x_name: str = "epoch",
    y_span: Sequence[float] = (),
) -> Markup:
    """Draw lines over epochs, layers or another count.

    Args:
        series: The lines.
        title: The quantity on the y axis, with its unit.
        y_format: Formats a value of the y axis.
        mark: A point to highlight, and its label.
        x_name: The quantity on the x axis.
        y_span: Values that the y axis always includes, so that small differences look small.
    """
    everything = [point for line in series for point in line.points]
    x_ticks = nice_ticks(0, max(x for x, _ in everything) or 1)
    heights_shown = [y for _, y in everything] + list(y_span)
    y_ticks = nice_ticks(min(heights_shown), max(heights_shown))
    x_max, (y_min, y_max) = max(max(x for x, _ in everything), 1e-9), (y_ticks[0], y_ticks[-1])

    def place(point: Point) -> Point:
        x, y = point
        height = (y - y_min) / (y_max - y_min)
        return LEFT + x / x_max * (RIGHT - LEFT), BOTTOM - height * (BOTTOM - TOP)

    parts = [_y_axis(y_ticks, lambda y: place((0, y))[1], y_format)]
    for x in x_ticks:
        if x <= x_max:
            parts.append(_text(place((x, 0))[0], BOTTOM + 18, f"{x:g}", anchor="middle"))
    parts.append(_text(RIGHT, BOTTOM + 36, x_name, anchor="end", kind="unit"))
    parts += _draw_lines(series, place, y_format)
    if mark is not None:
        x, y = place(mark[0])
        anchor = "start" if x < (LEFT + RIGHT) / 2 else "end"
        parts.append(Markup('<circle class="mark" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y))
        parts.append(_text(x, y - 11, mark[1], anchor=anchor, kind="note"))
    summary = "; ".join(
        f"{line.name} from {y_format(line.points[0][1])} to {y_format(line.points[-1][1])} at "
        f"{x_name} {line.points[-1][0]:g}"
        for line in series
    )
    domain = f"{x_max:g} {y_min:g} {y_max:g}"
    return Markup(
        '<svg class="chart lines" viewBox="0 0 {} {}" role="img" aria-label="{}" '
        'data-domain="{}" data-x="{}"{}>{}</svg>'
    ).format(
        WIDTH,
        HEIGHT,
        f"{title}: {summary}.",
        domain,
        x_name,
        Markup(' data-percent="1"') if y_format is percent else "",
        Markup("").join(parts),
    )


def _draw_lines(
    series: Sequence[Series], place: Callable[[Point], Point], y_format: Format
) -> list[Markup]:
    """Draw each line with a dot and a label at its end."""
    parts = []
    ends = [place(line.points[-1]) for line in series]
    labels = [textwrap.wrap(line.name, LABEL_LETTERS, break_long_words=False) for line in series]
    more = LINE_HEIGHT * (max(map(len, labels)) - 1)
    bottom = BOTTOM - LINE_HEIGHT - more
    heights = spread([y for _, y in ends], LABEL_HEIGHT + more, TOP + 10, bottom)
    for line, words, (x, y), height in zip(series, labels, ends, heights, strict=True):
        parts += [
            Markup('<path class="line {}" data-name="{}" d="{}"/>').format(
                line.tone, line.name, path([place(p) for p in line.points])
            ),
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(
                line.tone, x, y
            ),
        ]
        shown = [*((word, "name") for word in words), (y_format(line.points[-1][1]), "value")]
        for i, (text, kind) in enumerate(shown):
            parts.append(
                _text(RIGHT + 12, height + i * LINE_HEIGHT, text, kind=f"{kind} {line.tone}")
            )
    return parts


def calibration_chart(calibration: NDArray[np.float64]) -> Markup:
    """Draw accuracy over confidence.

    Each bin that has images is a dot, whose area shows the number of images. A stem joins the dot
    to the diagonal.

    Args:
        calibration: float64 (bins, 3): images, mean confidence and accuracy of each bin.
    """
    filled = [
        (int(n), confidence, accuracy) for n, confidence, accuracy in calibration.tolist() if n > 0
    ]
    most = max(n for n, _, _ in filled)

    def place(x: float, y: float) -> Point:
        return LEFT + x * (RIGHT - LEFT), BOTTOM - y * (BOTTOM - TOP)

    ticks = [0, 0.25, 0.5, 0.75, 1]
    parts = [_y_axis(ticks, lambda y: place(0, y)[1], percent)]
    parts += [_text(place(x, 0)[0], BOTTOM + 18, percent(x), anchor="middle") for x in ticks]
    parts.append(_text(RIGHT, BOTTOM + 36, "confidence", anchor="end", kind="unit"))
    (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
    parts.append(
        Markup('<path class="ideal" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(x0, y0, x1, y1)
    )
    parts.append(_text(RIGHT + 12, y1 + 4, "perfectly", kind="unit"))
    parts.append(_text(RIGHT + 12, y1 + 18, "calibrated", kind="unit"))
    for n, confidence, accuracy in filled:
        x, y = place(confidence, accuracy)
        _, y_ideal = place(confidence, confidence)
        parts.append(Markup('<path class="stem" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, y_ideal, y))
        summary = f"{n:,} images: confidence {percent(confidence)}, accuracy {percent(accuracy)}"
        parts.append(
            Markup(
                '<circle class="bubble" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">'
                "<title>{}</title></circle>"
            ).format(x, y, max(2.5, 13 * math.sqrt(n / most)), summary)
        )
    n, confidence, accuracy = max(filled)
    fullest = f"{n:,} images, confidence {percent(confidence)}, accuracy {percent(accuracy)}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(
        WIDTH,
        HEIGHT,
        f"Accuracy over confidence. The fullest bin: {fullest}.",
        Markup("").join(parts),
    )


def share_chart(points: Sequence[Point], *, title: str, x_name: str, y_name: str) -> Markup:
    """Draw a line over a square in which both axes are shares from 0 to 1.

    Args:
        points: The points of the line, in order of x.
        title: The title of the chart.
        x_name: The quantity on the x axis.
        y_name: The quantity on the y axis.
    """

    def place(point: Point) -> Point:
        return LEFT + point[0] * (RIGHT - LEFT), BOTTOM - point[1] * (BOTTOM - TOP)

    ticks = [0, 0.25, 0.5, 0.75, 1]
    parts = [_y_axis(ticks, lambda y: place((0, y))[1], percent)]
    parts += [_text(place((x, 0))[0], BOTTOM + 18, percent(x), anchor="middle") for x in ticks]
    parts.append(_text(RIGHT, BOTTOM + 36, x_name, anchor="end", kind="unit"))
    parts.append(_text(LEFT, TOP - 12, y_name, anchor="start", kind="unit"))
    line = path([place(point) for point in points])
    parts.append(Markup('<path class="line strong" d="{}"/>').format(line))
    half = next((y for x, y in points if x >= 0.5), 0.0)
    summary = f"{title}. {y_name} {percent(half)} at a {x_name} of 50%."
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, summary, Markup("").join(parts))


def percent(share: float) -> str:
    """Return a share as a percentage: 25% for 0.25, and 25.3% for 0.253."""
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def path(points: Sequence[Point]) -> str:
    """Return the d attribute of an SVG path through the points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def nice_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers for an axis.

    They are 1, 2 or 5 times a power of ten apart. The first is at or below `low`, and the last is
    at or above `high`. If `low` and `high` are the same number above 0, that number is the last, so
    that an axis of shares does not go beyond 100 %.

    Args:
        low: The smallest value to show.
        high: The largest value to show.
    """
    span = high - low or abs(high) or 1.0
    rough = span / 5  # about five steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last and high > 0:
        first = last - 1
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def thin(points: Sequence[Point], count: int = MAX_POINTS) -> list[Point]:
    """Reduce a line to at most `count` points by averaging neighbours. The last point is kept."""
    if len(points) <= count:
        return list(points)
    chunks = np.array_split(np.array(points[:-1]), count - 1)
    return [(float(x), float(y)) for x, y in (chunk.mean(0) for chunk in chunks)] + [points[-1]]


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move heights as little as needed so that no two are closer than `gap`.

    They stay within [low, high] as far as there is room.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [0.0] * len(heights)
    floor = low
    for i in order:
        placed[i] = floor = max(heights[i], floor)
        floor += gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def _y_axis(ticks: Sequence[float], height: Callable[[float], float], y_format: Format) -> Markup:
    return Markup("").join(
        Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, height(y), RIGHT)
        + _text(LEFT - 8, height(y) + 4, label, anchor="end")
        for y, label in zip(ticks, tick_labels(ticks, y_format), strict=True)
    )


def tick_labels(ticks: Sequence[float], y_format: Format) -> list[str]:
    """Label the ticks of an axis, with more decimals if the format gives two ticks the same label.

    Args:
        ticks: Round numbers, at least two, a constant step apart.
        y_format: Formats a value of the axis.
    """
    labels = [y_format(tick) for tick in ticks]
    if len(set(labels)) == len(labels):
        return labels
    factor, unit = (100, "%") if y_format is percent else (1, "")
    step = factor * min(b - a for a, b in zip(ticks, ticks[1:], strict=False))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{factor * tick:.{decimals}f}{unit}" for tick in ticks]


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, text
    )
