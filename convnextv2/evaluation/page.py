"""Build the report of a run: a single HTML file that opens offline.

Pictures are data URIs, and charts are inline SVG. `build_page` returns the HTML, and `write_page`
writes the file. The content of the page is chosen by each task, for example in
`tasks.classification.report`.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from convnextv2.evaluation.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Series,
    calibration_chart,
    line_chart,
    percent,
    thin,
)
from convnextv2.evaluation.gallery import shown_channels
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.templates import open_template, readable
from convnextv2.files import replacing

MAX_CLASSES_IN_MATRIX = 20
MAX_PAIRS = 15
MAX_PAIRS_BESIDE_MATRIX = 8
MAX_CLASSES_SHOWN = 20
EXAMPLE_SIDE_PX = 320
_MAIN = {
    "top-1 accuracy": "top1",
    "top-5 accuracy": "top5",
    "balanced accuracy": "balanced_accuracy",
    "macro F1": "macro_f1",
}
"""The figures at the top of the page: label -> name in a `ClassifierEvaluation`."""
_WORDS = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
PNG_PIXELS = 300_000
"""Pictures with more pixels are encoded as JPEG, so that the file stays small."""


@dataclass(frozen=True)
class Example:
    """An image with the predictions of the model.

    Attributes:
        image: The image.
        name: The name of its file.
        target: The name of the right class; None if it is not known.
        predictions: Class names and probabilities, the most probable first; at least one.
    """

    image: Image.Image
    name: str
    target: str | None
    predictions: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Section:
    """A section that a task adds to the page.

    Attributes:
        anchor: Its id, for links.
        title: Its heading.
        content: Its HTML.
    """

    anchor: str
    title: str
    content: Markup


def write_page(path: Path, page: str) -> None:
    """Write a page that `build_page` returned, in one atomic step.

    File names that are not valid UTF-8 are written with escapes.
    """
    with replacing(path, makes_folder=True) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def build_page(
    run_title: str,
    *,
    summary: Mapping[str, str],
    recipe: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]] = (),
    evaluation: ClassifierEvaluation | None = None,
    class_names: Sequence[str] = (),
    examples: Sequence[Example] = (),
    sections: Sequence[Section] = (),
    gallery: Image.Image | None = None,
    pretrain_metrics: Sequence[Mapping[str, Any]] | None = None,
    next_steps: Sequence[tuple[str, str]] = (),
    channels: int = 3,
    class_counts: Sequence[int] = (),
    balance: Sequence[str] = (),
) -> str:
    """Build the report as HTML. Parts without data are left out, and every name is escaped.

    Args:
        run_title: The title of the page.
        summary: Headline figures by label, formatted ("parameters": "3.4 M"). They follow the
            figures of the evaluation.
        recipe: Knobs and values.
        metrics: The records of training, from metrics.jsonl.
        evaluation: The figures of the classifier; None without a classifier.
        class_names: The names of the classifier's classes.
        examples: Images with predictions. Wrong and right ones are shown in separate groups, the
            most confident mistakes first.
        sections: Further sections, which follow the gallery.
        gallery: The picture that `reconstruction_gallery` makes.
        pretrain_metrics: The records of pre-training.
        next_steps: Commands, each with its purpose.
        channels: The number of channels of the images, for a note if not all are shown.
        class_counts: The number of training images of each class; empty if it is unknown.
        balance: Sentences about the frequencies of the classes.
    """
    page = open_template(__package__, "page.html.jinja")
    names = _all_names(class_names, evaluation)
    return page.render(
        title=run_title,
        figures=_headline(evaluation, summary),
        sections=sections,
        further=[(True, each.anchor, each.title) for each in sections],
        charts=_charts(metrics, pretrain_metrics or (), str(recipe.get("best_by", "top1"))),
        gallery=gallery and picture_of(gallery),
        evaluation=evaluation,
        names=names,
        matrix=evaluation.confusion if evaluation and len(names) <= MAX_CLASSES_IN_MATRIX else None,
        most_pairs=MAX_PAIRS_BESIDE_MATRIX,
        confusions=_confusions(evaluation, names) if evaluation else [],
        classes=_class_rows(evaluation, names, class_counts) if evaluation else [],
        balance=balance,
        most_classes=MAX_CLASSES_SHOWN,
        calibration=calibration_chart(evaluation.calibration)
        if evaluation and math.isfinite(evaluation.ece)
        else None,
        frame=(LEFT, RIGHT, TOP, BOTTOM),
        groups=[
            (title, lead, [(example, thumbnail(example.image)) for example in group])
            for title, lead, group in _grouped(examples)
        ],
        recipe={key: readable(value) for key, value in recipe.items()},
        next_steps=next_steps,
        shown_channels=shown_channels(channels),
        percent=percent,
        undefined=math.isnan,
    )


def _grouped(examples: Sequence[Example]) -> list[tuple[str, str, list[Example]]]:
    """Group examples into wrong, right and unlabelled ones.

    Returns:
        The title, an introduction, and the examples of each group that is not empty.
    """
    wrong, right, unlabelled = [], [], []
    for example in examples:
        if example.target is None:
            unlabelled.append(example)
        elif example.target == example.predictions[0][0]:
            right.append(example)
        else:
            wrong.append(example)
    wrong.sort(key=lambda example: -example.predictions[0][1])
    groups = [
        ("Wrong", "The most confident mistakes come first.", wrong),
        ("Right", "", right),
        ("Predictions", "", unlabelled),
    ]
    return [group for group in groups if group[2]]


def _headline(
    evaluation: ClassifierEvaluation | None, summary: Mapping[str, str]
) -> list[tuple[str, str]]:
    figures = []
    if evaluation is not None:
        for label, name in _MAIN.items():
            if (value := getattr(evaluation, name)) is None:
                continue
            if evaluation.intervals and name in evaluation.intervals:
                low, high = evaluation.intervals[name]
                label += f" (95% interval: {low:.1%} to {high:.1%})"
            figures.append((label, f"{value:.1%}"))
        figures.append(("validation images", f"{evaluation.images:,}"))
    return figures + [(label, str(value)) for label, value in summary.items()]


def _charts(
    metrics: Sequence[Mapping[str, Any]],
    pretrain_metrics: Sequence[Mapping[str, Any]],
    best_by: str,
) -> list[tuple[str, Markup]]:
    """Draw the learning curves that have points, each with its title.

    Args:
        metrics: The records of training.
        pretrain_metrics: The records of pre-training.
        best_by: The figure by which the best weights were chosen, which is marked.
    """
    evals = _of_kind(metrics, "eval")
    charts = [*_accuracy_chart(evals, best_by)]
    for heading, (name, figure), beside in (
        ("Validation mean average precision", ("mAP", "map"), None),
        ("Validation mean IoU", ("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy")),
        ("Validation average precision", ("AP", "ap"), ("AP50", "ap50")),
    ):
        if points := _points(evals, figure):
            series = [Series(beside[0], _points(evals, beside[1]), "soft")] if beside else []
            best = max(reversed(points), key=lambda point: point[1])  # the later of equals
            charts.append(_validation_chart(heading, [*series, Series(name, points)], best))
    losses = [
        Series("training", thin(_points(_of_kind(metrics, "train"), "loss")), "soft"),
        Series("validation", thin(_points(evals, "loss"))),
    ]
    if losses := [series for series in losses if series.points]:
        charts.append(("Loss", line_chart(losses, title="Loss", y_format=_loss)))
    pretraining = thin(_points(_of_kind(pretrain_metrics, "train"), "loss"))
    if pretraining:
        chart = line_chart(
            [Series("training", pretraining)],
            title="Pre-training loss (masked tiles)",
            y_format=_loss,
        )
        charts.append(("Pre-training loss (masked tiles)", chart))
    if probe := _probe_chart(_of_kind(pretrain_metrics, "probe")):
        charts.append(("Probes of frozen features", probe))
    return charts


def _accuracy_chart(
    evals: Sequence[Mapping[str, Any]], best_by: str
) -> Iterator[tuple[str, Markup]]:
    """Draw the accuracy of a classifier, and the figure by which its best weights were chosen."""
    accuracy, other = _points(evals, "top1"), _points(evals, best_by if best_by in _WORDS else "")
    if not accuracy:
        return
    series = [Series("top-1", accuracy)]
    if other:
        series = [Series("top-1", accuracy, "soft"), Series(_WORDS[best_by], other)]
    best = max(reversed(other or accuracy), key=lambda point: point[1])  # the later of equals
    if best_by == "loss" and (loss := _points(evals, "loss")):
        epoch = min(loss, key=lambda point: point[1])[0]
        best = next(point for point in accuracy if point[0] == epoch)
    yield _validation_chart("Validation accuracy", series, best)


def _validation_chart(
    heading: str, series: Sequence[Series], best: tuple[float, float]
) -> tuple[str, Markup]:
    """Draw shares over the epochs with a mark at the best one, and return heading and chart."""
    mark = best, f"best {best[1]:.1%}, epoch {best[0]:g}"
    return heading, line_chart(series, title=heading, y_format=percent, mark=mark)


def _probe_chart(records: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draw the results of probes during pre-training; None if there were none."""
    series = [
        Series("commonest", _points(records, "commonest"), "soft"),
        Series("neighbours", _points(records, "knn"), "soft"),
        Series("linear", _points(records, "linear")),
    ]
    if not series[-1].points:
        return None
    title = "Accuracy of probes of frozen features"
    return line_chart(series, title=title, y_format=percent, y_span=(0,))


def _of_kind(records: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Select the records of one kind. Records of an epoch also hold figures of the evaluation."""
    return [record for record in records if record["kind"] == kind]


def _points(records: Iterable[Mapping[str, Any]], figure: str) -> list[tuple[float, float]]:
    """Return (epoch, figure) for the records in which the figure is a finite number."""
    found = [(float(record["epoch"]), record.get(figure)) for record in records]
    return [
        (epoch, float(value))
        for epoch, value in found
        if value is not None and math.isfinite(value)
    ]


def _confusions(
    evaluation: ClassifierEvaluation, names: Sequence[str]
) -> list[tuple[str, str, int, int]]:
    """Find the most frequent mistakes: target, prediction, count, and images of the target."""
    mistakes = evaluation.pairs[evaluation.pairs[:, 0] != evaluation.pairs[:, 1]]
    most = mistakes[np.argsort(-mistakes[:, 2], kind="stable")[:MAX_PAIRS]].tolist()
    return [(names[i], names[j], n, int(evaluation.support[i])) for i, j, n in most]


def _class_rows(
    evaluation: ClassifierEvaluation, names: Sequence[str], counts: Sequence[int]
) -> list[tuple[str, int, float, float, float, int | None]]:
    """List the classes that occur, the weakest first.

    Returns:
        The name, the validation images, precision, recall, F1, and the training images or None.
    """
    columns = (evaluation.support, evaluation.precision, evaluation.recall, evaluation.f1)
    each = (*(column.tolist() for column in columns), counts or [None] * len(names))
    rows = list(zip(names, *each, strict=True))
    return sorted((row for row in rows if not math.isnan(row[4])), key=lambda row: row[4])


def _all_names(class_names: Sequence[str], evaluation: ClassifierEvaluation | None) -> list[str]:
    """Return the name of every class of the model. A class without a name gets its number."""
    count = len(evaluation.support) if evaluation else len(class_names)
    return [class_names[i] if i < len(class_names) else str(i) for i in range(count)]


def thumbnail(image: Image.Image) -> dict[str, Any]:
    """Encode a small version of a picture as the uri, width and height of an img element."""
    small = image.convert("RGB")
    small.thumbnail((EXAMPLE_SIDE_PX, EXAMPLE_SIDE_PX))
    return picture_of(small)


def picture_of(image: Image.Image) -> dict[str, Any]:
    """Encode a picture as the uri, width and height of an img element."""
    data = io.BytesIO()
    photo = image.width * image.height > PNG_PIXELS or (
        image.mode == "RGB" and min(image.size) > 96
    )
    kind, options = ("jpeg", {"quality": 88}) if photo else ("png", {"optimize": True})
    image.convert("RGB").save(data, kind, **options)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"uri": uri, "width": image.width, "height": image.height}


def _loss(value: float) -> str:
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"
