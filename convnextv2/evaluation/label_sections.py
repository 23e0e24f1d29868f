"""The sections of a report on images that may have any number of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from convnextv2.evaluation.gallery import shown_channels
from convnextv2.evaluation.multi_label_metrics import MultiLabelEvaluation
from convnextv2.evaluation.page import MAX_CLASSES_SHOWN, MAX_PAIRS, Section, thumbnail
from convnextv2.evaluation.templates import open_template
from convnextv2.evaluation.thresholds import DEFAULT

_MAX_LABELS = 6
"""The number of labels whose scores are shown below an image."""


class Label(NamedTuple):
    """A label of an image: its name, its probability, and whether the image has it."""

    name: str
    score: float
    has: bool


@dataclass(frozen=True)
class WrongLabels:
    """An image with labels that are wrong.

    Attributes:
        image: The image.
        name: The name of its file.
        right: The labels of the image that were found.
        missed: The labels of the image that were not found.
        added: The labels that were found although the image does not have them.
        labels: The scores to show: those of all labels above, and the highest of the others.
    """

    image: Image.Image
    name: str
    right: Sequence[str]
    missed: Sequence[str]
    added: Sequence[str]
    labels: Sequence[Label]


class _ClassRow(NamedTuple):
    name: str
    images: int
    ap: float
    threshold: float
    precision: float
    recall: float
    f1: float


def label_headline(evaluation: MultiLabelEvaluation) -> dict[str, str]:
    """Return the main figures for the top of a page, formatted, by label."""
    where = "at its thresholds" if evaluation.fitted else "at 0.5"
    return {
        "mean average precision": f"{evaluation.map_macro:.1%}",
        f"F1 {where}, mean of the classes": f"{evaluation.chosen.f1_macro:.1%}",
        f"F1 {where}, all labels": f"{evaluation.chosen.f1_micro:.1%}",
        "images without a wrong label": f"{evaluation.chosen.exact_match:.1%}",
        "validation images": f"{evaluation.images:,}",
    }


def label_sections(
    evaluation: MultiLabelEvaluation,
    names: Sequence[str],
    examples: Sequence[WrongLabels],
    channels: int = 3,
) -> list[Section]:
    """Build the sections of an evaluation.

    Args:
        evaluation: The figures.
        names: The names of the classes.
        examples: Images with wrong labels, the worst first.
        channels: The number of channels of the images, for a note if not all are shown.
    """
    template = open_template(__package__, "label_sections.html.jinja", undefined=math.isnan)
    macros: Any = template.module
    rows = _class_rows(evaluation, names)
    made = macros.classes(rows, MAX_CLASSES_SHOWN, evaluation.absent, bool(evaluation.thresholds))
    sections = [Section("classes", "Classes", Markup(made))]
    if pairs := _pairs(evaluation.together, names):
        sections.append(Section("together", "Labels together", Markup(macros.together(pairs))))
    if examples:
        shown = [(example, thumbnail(example.image)) for example in examples]
        made = macros.errors(shown, shown_channels(channels))
        sections.append(Section("errors", "Worst errors", Markup(made)))
    return sections


def _class_rows(evaluation: MultiLabelEvaluation, names: Sequence[str]) -> list[_ClassRow]:
    """List the figures of each class, the lowest AP first and those without AP last."""
    chosen = evaluation.chosen
    thresholds = evaluation.thresholds or (DEFAULT,) * len(names)
    columns = (evaluation.support, evaluation.ap, chosen.precision, chosen.recall, chosen.f1)
    rows = [
        _ClassRow(name, images, ap, threshold, precision, recall, f1)
        for name, threshold, images, ap, precision, recall, f1 in zip(
            names, thresholds, *(column.tolist() for column in columns), strict=True
        )
    ]
    return sorted(rows, key=lambda row: (math.isnan(row.ap), row.ap))


def _pairs(together: NDArray[np.int64], names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """Find the labels that most often occur together, the rarer one first."""
    alone = together.diagonal()
    first, second = np.nonzero(np.triu(together, 1))
    order = np.argsort(-together[first, second], kind="stable")[:MAX_PAIRS]
    found = []
    for a, b in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if alone[a] > alone[b]:
            a, b = b, a
        images = int(together[a, b])
        found.append((names[a], names[b], images, images / int(alone[a])))
    return found


def wrong_labels(
    image: Image.Image,
    name: str,
    probs: NDArray[np.float32],
    targets: NDArray[np.int8],
    thresholds: Sequence[float],
    names: Sequence[str],
) -> WrongLabels:
    """Describe an image with wrong labels.

    Args:
        image: The image.
        name: The name of its file.
        probs: float32 (K,).
        targets: int8 (K,); see `source.Targets`.
        thresholds: A threshold for each class.
        names: The names of the classes.
    """
    found, has, lacks = probs >= np.array(thresholds), targets == 1, targets == 0

    def named(chosen: NDArray[np.bool_]) -> list[str]:
        return [names[k] for k in np.flatnonzero(chosen).tolist()]

    # Labels that the image has or was given come first, then the others, each by score.
    order = np.lexsort((-probs, ~(has | found)))[: max(_MAX_LABELS, int((has | found).sum()))]
    labels = [Label(names[k], float(probs[k]), bool(has[k])) for k in order.tolist()]
    return WrongLabels(
        image, name, named(found & has), named(has & ~found), named(found & lacks), labels
    )
