"""The page that compares runs: figures, curves, changed predictions, settings and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image

from convnextv2.evaluation.charts import Series, line_chart, percent, thin
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.page import Section, build_page, thumbnail
from convnextv2.evaluation.paired import Paired
from convnextv2.evaluation.templates import open_template, readable

MAX_RUNS = 8
"""The largest number of runs that one page compares."""
MAX_CLASSES = 12
"""The largest number of classes that are listed. Those whose recall changed most are chosen."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the models that are compared.

    Attributes:
        letter: Its name on the page: A, B and so on.
        name: The path that the user gave.
        evaluation: Its figures on the images; None for pre-training.
        paired: Its comparison with A; None for A itself and for pre-training.
        records: The log of its run; empty without a run.
        settings: The recipe of its run; empty without a run.
        cost: Size, pace and similar figures, formatted, by label.
    """

    letter: str
    name: str
    evaluation: ClassifierEvaluation | None = None
    paired: Paired | None = None
    records: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, str] = field(default_factory=dict)


class Changed(NamedTuple):
    """An image that exactly one of A and another model classifies correctly."""

    image: Image.Image
    name: str
    target: str
    answers: Sequence[tuple[str, str, float, bool]]
    """The answer of each model: its letter, the class, its probability, and whether it is right."""


class _Difference(NamedTuple):
    setting: str
    values: Sequence[str]


class _ClassRow(NamedTuple):
    name: str
    images: int
    recalls: Sequence[float]


def build_comparison(
    title: str,
    models: Sequence[Compared],
    class_names: Sequence[str] = (),
    changed: Sequence[Changed] = (),
) -> str:
    """Build the page as HTML.

    Args:
        title: The title of the page.
        models: The models. The others are compared with the first one.
        class_names: The names of the classes, in the order of the evaluations. If it is empty,
            classes are not compared.
        changed: Images that the models classify differently.
    """
    template = open_template(
        __package__, "comparison.html.jinja", undefined=math.isnan, percent=percent
    )
    macros: Any = template.module
    sections = [Section("figures", "Figures", Markup(macros.figures(models)))]
    paired = [model for model in models if model.paired is not None]
    if paired:
        sections.append(Section("paired", "Paired", Markup(macros.paired(models[0], paired))))
    if charts := draw_curves(models):
        sections.append(Section("curves", "Learning curves", Markup(macros.curves(charts))))
    if paired and class_names and (rows := class_rows(models, class_names)):
        made = macros.classes(models, rows, len(class_names))
        sections.append(Section("classes", "Classes that changed", Markup(made)))
    if changed:
        shown = [(each, thumbnail(each.image)) for each in changed]
        sections.append(Section("images", "Images that changed", Markup(macros.images(shown))))
    if (differences := settings_that_differ(models)) is not None:
        made = macros.settings([m for m in models if m.settings], differences)
        sections.append(Section("settings", "Settings that differ", Markup(made)))
    return build_page(title, summary={}, recipe={}, sections=sections)


def draw_curves(models: Sequence[Compared]) -> list[tuple[str, Markup]]:
    """Draw validation accuracy, losses, probes and feature diversity of the models with a run.

    Returns:
        The title of each chart, and the chart.
    """
    kinds = (
        ("Validation accuracy", "eval", "top1", percent),
        ("Validation loss", "eval", "loss", _loss),
        ("Training loss", "train", "loss", _loss),
        ("Linear probe of frozen features", "probe", "linear", percent),
        ("Nearest neighbours of frozen features", "probe", "knn", percent),
        ("Mean feature diversity", "health", "mean_diversity", _loss),
    )
    charts = []
    for title, kind, figure, y_format in kinds:
        series = [
            Series(model.letter, thin(points), "strong" if model is models[0] else "soft")
            for model in models
            if (points := _points(model.records, kind, figure))
        ]
        if series:
            charts.append((title, line_chart(series, title=title, y_format=y_format)))
    return charts


def _points(
    records: Sequence[Mapping[str, Any]], kind: str, figure: str
) -> list[tuple[float, float]]:
    return [
        (float(record["epoch"]), float(record[figure]))
        for record in records
        if record["kind"] == kind
        and record.get(figure) is not None
        and math.isfinite(record[figure])
    ]


def class_rows(models: Sequence[Compared], class_names: Sequence[str]) -> list[_ClassRow]:
    """List the classes whose recall differs most from that of A, the largest change first."""
    recalls = np.array([model.evaluation.recall for model in models if model.evaluation])
    assert models[0].evaluation is not None
    support = models[0].evaluation.support
    change = np.abs(recalls - recalls[0]).max(0)
    order = [k for k in np.argsort(-change, kind="stable").tolist() if change[k] > 0]
    return [
        _ClassRow(class_names[k], int(support[k]), recalls[:, k].tolist())
        for k in order[:MAX_CLASSES]
    ]


def settings_that_differ(models: Sequence[Compared]) -> list[_Difference] | None:
    """List the settings in which the recipes differ; None if fewer than two models have one."""
    recipes = [model.settings for model in models if model.settings]
    if len(recipes) < 2:
        return None
    names = [name for name in recipes[0] if name != "out"]
    return [
        _Difference(name, [readable(recipe.get(name)) for recipe in recipes])
        for name in names
        if any(recipe.get(name) != recipes[0][name] for recipe in recipes)
    ]


def _loss(value: float) -> str:
    return f"{value:.3g}"
