"""The sections of a report on a detector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from convnextv2.evaluation.charts import share_chart
from convnextv2.evaluation.detection import SIZES, DetectionEvaluation, share_or_dash
from convnextv2.evaluation.page import MAX_CLASSES_SHOWN, Section, thumbnail
from convnextv2.evaluation.templates import open_template

MAX_CURVES = 12
"""The number of classes whose curves are drawn: those with the most objects."""
_SIZE_NOTE = (
    "Small objects cover less than 32 x 32 px of the image, large ones more than 96 x 96 px."
)


@dataclass(frozen=True)
class DrawnImage:
    """An image with the objects that were found in it.

    Attributes:
        image: The image, with boxes and masks.
        name: The name of its file.
        right: The number of objects that were found.
        wrong: The number of boxes without an object.
        missed: The number of objects that were not found.
    """

    image: Image.Image
    name: str
    right: int
    wrong: int
    missed: int


def detection_headline(evaluation: DetectionEvaluation) -> dict[str, str]:
    """Return the main figures for the top of a page, formatted, by label."""
    what = "mask" if evaluation.masks is not None else "box"
    headline = {
        f"{what} AP": share_or_dash(evaluation.main.ap),
        f"{what} AP50": share_or_dash(evaluation.main.ap50),
    }
    if evaluation.masks is not None:
        headline["box AP"] = share_or_dash(evaluation.boxes.ap)
    return headline | {
        "validation images": f"{evaluation.images:,}",
        "objects in them": f"{int(evaluation.objects.sum()):,}",
    }


def detection_sections(
    evaluation: DetectionEvaluation,
    names: Sequence[str],
    worst: Sequence[DrawnImage],
    shown_from: float,
) -> list[Section]:
    """Build the sections of an evaluation.

    Args:
        evaluation: The figures.
        names: The names of the classes.
        worst: The images with the most mistakes, the worst first.
        shown_from: The lowest score of the objects that are drawn.
    """
    template = open_template(__package__, "detection_sections.html.jinja", undefined=math.isnan)
    macros: Any = template.module
    main = evaluation.main
    rows = [("boxes", evaluation.boxes), ("masks", evaluation.masks)]
    precision = macros.precision([row for row in rows if row[1] is not None], SIZES, _SIZE_NOTE)
    columns = (evaluation.objects.tolist(), main.by_class.tolist(), main.by_class50.tolist())
    each = sorted(zip(names, *columns, strict=True), key=lambda row: (math.isnan(row[2]), row[2]))
    what = "masks" if evaluation.masks is not None else "boxes"
    absent = int((evaluation.objects == 0).sum())
    sections = [
        Section("precision", "Average precision", Markup(precision)),
        Section(
            "classes",
            "Classes",
            Markup(macros.classes(each, MAX_CLASSES_SHOWN, absent, what)),
        ),
    ]
    if charts := _curves(evaluation, names):
        sections.append(Section("recall", "Precision and recall", Markup(macros.curves(charts))))
    if worst:
        shown = [(example, thumbnail(example.image)) for example in worst]
        sections.append(
            Section("worst", "Worst images", Markup(macros.worst(shown, f"{shown_from:g}")))
        )
    return sections


def _curves(evaluation: DetectionEvaluation, names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Draw the curves of the classes with the most objects."""
    main = evaluation.main
    order = np.argsort(-evaluation.objects, kind="stable")[:MAX_CURVES].tolist()
    charts = []
    for k in order:
        curve = main.curves[k]
        if np.isnan(curve).any():
            continue
        points = [(i / 100, float(value)) for i, value in enumerate(curve.tolist())]
        title = f"{names[k]}, AP50 {share_or_dash(float(main.by_class50[k]))}"
        charts.append(
            (title, share_chart(points, title=title, x_name="recall", y_name="precision"))
        )
    return charts
