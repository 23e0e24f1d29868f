"""The page of a model that gives images any number of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnextv2.console import say
from convnextv2.errors import DataError
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.label_sections import (
    WrongLabels,
    label_headline,
    label_sections,
    wrong_labels,
)
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.evaluation.thresholds import DEFAULT
from convnextv2.find import run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.multi_label.measure import MeasuredLabels
from convnextv2.tasks.supervised.page import next_steps, page_of, pretraining, short
from convnextv2.tasks.title import title
from convnextv2.weights.opened import Weights

_EXAMPLES = 12
"""Number of images with wrong labels that are shown."""


def write_label_report(
    weights: Path, measured: MeasuredLabels, recipe: Recipe, init: Weights | None = None
) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: The path of the weights that were evaluated.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.

    Returns:
        The path of the page; see `classification.report.write_evaluation_report`.
    """
    path, run = page_of(weights, recipe), run_of(weights)
    gallery, pretrain_metrics = pretraining(recipe, init)
    names, evaluation = measured.description.class_names, measured.evaluation
    channels: int = measured.description.arguments["in_channels"]
    summary = label_headline(evaluation) | {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
        "parameters": short(measured.parameters),
    }
    if measured.skipped:
        summary["validation images left out"] = str(len(measured.skipped))
    page = build_page(
        title(recipe),
        summary=summary,
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else (),
        sections=label_sections(evaluation, names, _examples(measured, channels), channels),
        gallery=gallery,
        channels=channels,
        pretrain_metrics=pretrain_metrics,
        next_steps=next_steps(str(run.path) if run else "RUN", recipe),
    )
    write_page(path, page)
    return path


def _examples(measured: MeasuredLabels, channels: int) -> list[WrongLabels]:
    """Choose the images with wrong labels whose loss is largest."""
    probs, targets = measured.scores.probs, measured.scores.targets
    names = measured.description.class_names
    thresholds = measured.description.thresholds or [DEFAULT] * len(names)
    is_wrong = ((probs >= np.array(thresholds)) != (targets == 1)) & (targets >= 0)
    signed = np.where(targets == 1, -measured.scores.logits, measured.scores.logits)
    losses = np.where(targets >= 0, np.logaddexp(0, signed), 0).sum(axis=1)
    worst = [i for i in np.argsort(-losses, kind="stable").tolist() if is_wrong[i].any()]
    examples = []
    for i in worst[:_EXAMPLES]:
        index = int(measured.scores.indices[i])
        try:
            pixels = measured.source.pixels(index, channels, measured.value_range)
        except DataError as error:  # damaged or deleted since the evaluation
            say(f"An example is left out of the report: {error}")
            continue
        name = Path(measured.source.names[index]).name
        examples.append(
            wrong_labels(to_picture(pixels), name, probs[i], targets[i], thresholds, names)
        )
    return examples
