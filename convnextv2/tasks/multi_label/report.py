"""The page of a model that gives images any number of labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.label_sections import (
    WrongLabels,
    label_headline,
    label_sections,
    wrong_labels,
)
from convnextv2.evaluation.thresholds import DEFAULT
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.multi_label.measure import MeasuredLabels
from convnextv2.tasks.page import read_example, run_page, summary_of
from convnextv2.tasks.supervised.next_steps import next_steps
from convnextv2.weights.opened import Weights

_EXAMPLES = 12
"""Number of images with wrong labels that are shown."""


def label_page(
    run: Run | None, measured: MeasuredLabels, recipe: Recipe, init: Weights | None
) -> str:
    """Build the page of an evaluation as HTML.

    Args:
        run: The run that was evaluated; None for weights on their own.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
    """
    names, evaluation = measured.description.class_names, measured.evaluation
    channels: int = measured.description.arguments["in_channels"]
    return run_page(
        run,
        recipe,
        init,
        summary=label_headline(evaluation) | summary_of(recipe, measured),
        channels=channels,
        next_steps=next_steps(str(run.path) if run else "RUN", recipe.lr),
        sections=label_sections(evaluation, names, _examples(measured, channels), channels),
    )


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
        pixels = read_example(
            partial(measured.source.pixels, index, channels, measured.value_range)
        )
        if pixels is None:
            continue
        name = Path(measured.source.names[index]).name
        examples.append(
            wrong_labels(to_picture(pixels), name, probs[i], targets[i], thresholds, names)
        )
    return examples
