"""Charts: geometry that can be computed by hand."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from convnextv2.evaluation.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    calibration_chart,
    line_chart,
    nice_ticks,
    percent,
    spread,
    thin,
    tick_labels,
)


def lines_of(svg: str) -> list[list[tuple[float, float]]]:
    paths = [
        p.attrib["d"]
        for p in ElementTree.fromstring(svg).iter("path")
        if p.attrib["class"].startswith("line")
    ]
    return [[tuple(map(float, point.split())) for point in path[1:].split("L")] for path in paths]


def test_a_line_has_a_point_for_each_value_at_its_place():
    (line,) = lines_of(
        line_chart(
            [Series("top-1", [(1, 0.0), (2, 0.5), (4, 1.0)])], title="Accuracy", y_format=percent
        )
    )
    assert line == [
        (pytest.approx(LEFT + (RIGHT - LEFT) / 4, abs=0.06), BOTTOM),
        (pytest.approx((LEFT + RIGHT) / 2, abs=0.06), pytest.approx((TOP + BOTTOM) / 2, abs=0.06)),
        (RIGHT, TOP),
    ]


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_long_labels_end_within_the_chart_and_do_not_overlap(value: float) -> None:
    names = ("balanced accuracy", "pixel accuracy", "mIoU")
    series = [Series(name, [(1, 0.3), (9, value)]) for name in names]
    chart = line_chart(series, title="Accuracy", y_format=percent, y_span=(0, 1))
    labels = [
        (text.text or "", float(text.attrib["y"]))
        for text in ElementTree.fromstring(chart).iter("text")
        if float(text.attrib["x"]) > RIGHT
    ]
    assert " ".join(text for text, _ in labels if "%" not in text) == " ".join(names)
    letter = 7  # the mean width of a bold letter of 12 px
    assert all(RIGHT + 12 + letter * len(text) <= WIDTH for text, _ in labels)
    heights = sorted(y for _, y in labels)
    assert all(b - a >= 12 for a, b in zip(heights, heights[1:], strict=False))
    assert TOP <= heights[0] and heights[-1] <= BOTTOM + 1


def test_lines_are_labelled_directly_and_described_in_words():
    chart = line_chart(
        [
            Series("training", [(1, 2.0), (9, 0.5)], "soft"),
            Series("validation", [(1, 1.9), (9, 0.52)]),
        ],
        title="Loss",
        y_format=lambda value: f"{value:g}",
        mark=((9, 0.52), "lowest"),
    )
    texts = [text.text for text in ElementTree.fromstring(chart).iter("text")]
    assert {"training", "validation", "0.5", "0.52", "epoch", "lowest"} <= set(texts)
    label = "Loss: training from 2 to 0.5 at epoch 9; validation from 1.9 to 0.52 at epoch 9."
    assert f'aria-label="{label}"' in chart


@pytest.mark.parametrize(
    "points", [[(1, 0.3)], [(1, 0.3), (2, 0.3)], [(0, 0.0)], [(0.25, 7e-5), (0.5, 6e-5)]]
)
def test_flat_and_single_values_have_a_chart(points):
    (line,) = lines_of(line_chart([Series("loss", points)], title="Loss", y_format=str))
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in line)


def test_names_are_escaped():
    assert "<b>" not in line_chart([Series("<b>", [(1, 1)])], title='"<b>', y_format=str)


@pytest.mark.parametrize(
    ("least", "most", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.21, 0.83, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 1, [0.8, 1.0]),
        (0.3, 0.3, [0.2, 0.3]),
        (0, 0, [0, 0.2]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(least, most, ticks):
    assert nice_ticks(least, most) == ticks


def test_thinning_keeps_the_mean_and_the_last_point():
    points = [(float(i), float(i % 7)) for i in range(1000)]
    thinned = thin(points, 100)
    assert len(thinned) == 100 and thinned[-1] == points[-1]
    assert np.mean([y for _, y in thinned]) == pytest.approx(
        np.mean([y for _, y in points]), abs=0.05
    )
    assert thin(points[:100], 100) == points[:100]


@pytest.mark.parametrize(
    ("ticks", "y_format", "labels"),
    [
        ([0, 0.0002, 0.0004], percent, ["0.00%", "0.02%", "0.04%"]),
        ([0.5, 0.6], percent, ["50%", "60%"]),
        ([1.2341, 1.2342], lambda y: f"{y:.3g}", ["1.2341", "1.2342"]),
        ([0, 20, 40], lambda y: f"{y:.3g}", ["0", "20", "40"]),
    ],
)
def test_no_two_ticks_have_one_label(ticks, y_format, labels) -> None:
    assert tick_labels(ticks, y_format) == labels


def test_labels_that_would_overlap_are_moved_apart():
    assert spread([50, 10], 20, 0, 100) == [50, 10]
    apart = spread([50, 52, 99], 20, 0, 100)
    assert apart == [50, 70, 99]
    assert spread([98, 99], 20, 0, 100) == [80, 100]


def test_calibration_has_a_dot_for_each_bin_with_images_its_area_their_number():
    bins = np.array([[0, math.nan, math.nan], [100, 0.5, 0.25], [400, 0.75, 1.0]])
    chart = calibration_chart(bins)
    few, many = (circle.attrib for circle in ElementTree.fromstring(chart).iter("circle"))
    assert float(many["r"]) == pytest.approx(2 * float(few["r"]), abs=0.1)
    assert float(few["cx"]) == pytest.approx((LEFT + RIGHT) / 2, abs=0.1)
    assert float(many["cy"]) == TOP
    assert re.search("400 images, confidence 75%, accuracy 100%", chart) and "nan" not in chart
