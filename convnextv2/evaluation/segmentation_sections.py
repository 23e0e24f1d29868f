"""The sections of a report on a segmentor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from convnextv2.evaluation.gallery import GUTTER_PX, shown_channels, to_picture
from convnextv2.evaluation.overlay import class_colours, overlay
from convnextv2.evaluation.page import MAX_CLASSES_SHOWN, Section, picture_of
from convnextv2.evaluation.segmentation import SegmentationEvaluation
from convnextv2.evaluation.templates import open_template

_MAX_LABELS = 6
"""The number of classes that are named below an image."""
_SIDE_PX = 300
"""The longer side of each of the three pictures of an image."""


class _ClassRow(NamedTuple):
    name: str
    share: float
    iou: float
    recall: float
    precision: float


class _Label(NamedTuple):
    name: str
    colour: str
    right: float
    found: float


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its label map and its prediction.

    Attributes:
        picture: The three side by side.
        name: The name of its file.
        accuracy: The share of the pixels that are right.
        labels: The classes with the most pixels in the map or the prediction.
    """

    picture: Image.Image
    name: str
    accuracy: float
    labels: Sequence[_Label]


def segmentation_headline(evaluation: SegmentationEvaluation) -> dict[str, str]:
    """Return the main figures for the top of a page, formatted, by label."""
    return {
        "mean IoU": f"{evaluation.miou:.1%}",
        "pixel accuracy": f"{evaluation.accuracy:.1%}",
        "mean accuracy of the classes": f"{evaluation.mean_accuracy:.1%}",
        "classes counted": f"{evaluation.classes_counted} of {len(evaluation.class_names)}",
        "validation images": f"{evaluation.images:,}",
    }


def segmentation_sections(
    evaluation: SegmentationEvaluation, examples: Sequence[SegmentedImage], channels: int = 3
) -> list[Section]:
    """Build the sections of an evaluation.

    Args:
        evaluation: The figures.
        examples: Images to show, the worst first.
        channels: The number of channels of the images, for a note if not all are shown.
    """
    template = open_template(__package__, "segmentation_sections.html.jinja", undefined=math.isnan)
    macros: Any = template.module
    rows = _class_rows(evaluation)
    absent = len(evaluation.class_names) - len(rows)
    made = macros.classes(rows, MAX_CLASSES_SHOWN, absent)
    sections = [Section("classes", "Classes", Markup(made))]
    names, support = evaluation.class_names, evaluation.support
    pairs = [
        (names[i], names[j], pixels, pixels / int(support[i]))
        for i, j, pixels in evaluation.confusions()
    ]
    if pairs:
        sections.append(Section("confusions", "Confusions", Markup(macros.confusions(pairs))))
    if examples:
        shown = [(example, picture_of(example.picture)) for example in examples]
        made = macros.images(shown, shown_channels(channels))
        sections.append(Section("images", "Worst images", Markup(made)))
    return sections


def segmented_image(
    pixels: Tensor,
    targets: Tensor,
    predicted: Tensor,
    *,
    name: str,
    class_names: Sequence[str],
) -> SegmentedImage:
    """Show an image, its label map and its prediction side by side.

    Args:
        pixels: uint8 (C, H, W).
        targets: Integers (H, W), class indices, negative where there is none.
        predicted: Integers (H, W), class indices.
        name: The name of its file.
        class_names: One for each class.
    """
    count = len(class_names)
    parts = [to_picture(pixels), overlay(pixels, targets, count), overlay(pixels, predicted, count)]
    width, height = parts[0].size
    factor = _SIDE_PX / max(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    canvas = Image.new("RGB", (3 * size[0] + 2 * GUTTER_PX, size[1]), "white")
    for i, part in enumerate(parts):
        canvas.paste(part.resize(size), (i * (size[0] + GUTTER_PX), 0))
    known = targets >= 0
    right = np.bincount(targets[known].numpy(), minlength=count) / max(1, int(known.sum()))
    found = np.bincount(predicted[known].numpy(), minlength=count) / max(1, int(known.sum()))
    most = np.argsort(-np.maximum(right, found), kind="stable")[:_MAX_LABELS].tolist()
    colours = class_colours(count)
    labels = [
        _Label(
            class_names[k],
            "#" + "".join(f"{band:02x}" for band in colours[k].tolist()),
            float(right[k]),
            float(found[k]),
        )
        for k in most
        if right[k] or found[k]
    ]
    accuracy = float((targets == predicted)[known].float().mean()) if bool(known.any()) else 0.0
    return SegmentedImage(canvas, name, accuracy, labels)


def _class_rows(evaluation: SegmentationEvaluation) -> list[_ClassRow]:
    """List the classes that occur, the lowest IoU first."""
    support, right = evaluation.support, evaluation.confusion.diagonal()
    shares = support / support.sum()
    precision = np.where(
        evaluation.predicted > 0, right / np.maximum(evaluation.predicted, 1), np.nan
    )
    columns = (shares, evaluation.iou, evaluation.recall, precision)
    rows = [
        _ClassRow(name, *(float(value) for value in values))
        for name, *values in zip(evaluation.class_names, *columns, strict=True)
    ]
    return sorted((row for row in rows if not math.isnan(row.iou)), key=lambda row: row.iou)
