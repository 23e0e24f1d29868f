"""The page of a classifier: its training, its evaluation, and examples of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from convnextv2.evaluation.balance import statement
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.page import Example
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import MeasuredClassifier
from convnextv2.tasks.page import read_example, run_page, summary_of
from convnextv2.tasks.supervised.next_steps import next_steps
from convnextv2.weights.opened import Weights

_EXAMPLES = 8
"""The number of correct predictions that are shown, and of wrong ones."""


def classifier_page(
    run: Run | None,
    measured: MeasuredClassifier,
    recipe: Recipe,
    init: Weights | None,
    teacher: Mapping[str, str],
) -> str:
    """Build the page of an evaluation as HTML.

    Args:
        run: The run that was evaluated; None for weights on their own.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
        teacher: Entries of the summary that say who the teacher was; see `summarise_teacher`.
    """
    summary = summary_of(recipe) | _stopped(run, recipe) | summary_of(recipe, measured)
    if (found := measured.evaluation.unknown) is not None:
        summary["right class among the possible"] = (
            f"{found.covered:.2%} of {found.images} images (asked: {found.asked:.2%})"
        )
        summary["possible classes, mean"] = f"{found.mean_possible:.2f}"
        summary["foreign images"] = f"{found.foreign:.2%}"
    names = measured.description.class_names
    if (only := measured.evaluation.only_prediction) is not None:
        summary["class of every image"] = f"{names[only]} (collapsed, or nothing learned)"
    return run_page(
        run,
        recipe,
        init,
        summary={**summary, **teacher},
        channels=_channels(measured),
        next_steps=next_steps(str(run.path) if run else "RUN", recipe.lr),
        evaluation=measured.evaluation,
        class_names=names,
        examples=_examples(measured),
        class_counts=measured.description.balance.get("class_counts", ()),
        balance=_balance(measured),
    )


def _balance(measured: MeasuredClassifier) -> list[str]:
    """Say how frequent the classes were in training, and are in validation."""
    in_training = statement(measured.description.balance, measured.description.class_names)
    return [line for line in (in_training, measured.few) if line]


def _stopped(run: Run | None, recipe: Recipe) -> dict[str, str]:
    """Say in the summary that a run ended before its last epoch."""
    evals = [record for record in run.metrics() if record["kind"] == "eval"] if run else []
    if recipe.patience is None or not evals or evals[-1]["epoch"] >= recipe.epochs or recipe.time:
        return {}
    return {"stopped early, epochs": f"{evals[-1]['epoch']} of {recipe.epochs}"}


def _channels(measured: MeasuredClassifier) -> int:
    """Return the number of channels of the images. An artifact states its own."""
    channels: int = measured.description.arguments["in_channels"]
    return channels


def _examples(measured: MeasuredClassifier) -> list[Example]:
    """Choose the most confident mistakes, and right predictions spread evenly over the images."""
    predictions = measured.predictions
    right = predictions.classes[:, 0] == predictions.targets
    confident = np.argsort(-predictions.probs[:, 0])
    wrong = [i for i in confident if not right[i]][:_EXAMPLES]
    spread = np.flatnonzero(right)
    chosen = (
        spread[
            np.linspace(0, len(spread) - 1, min(_EXAMPLES, len(spread))).round().astype(int)
        ].tolist()
        if len(spread)
        else []
    )
    examples = [read_example(partial(_example, measured, i)) for i in [*wrong, *chosen]]
    return [example for example in examples if example is not None]


def _example(measured: MeasuredClassifier, i: int) -> Example:
    names: Sequence[str] = measured.description.class_names
    predictions = measured.predictions
    index = int(predictions.indices[i])
    return Example(
        to_picture(measured.source.pixels(index, _channels(measured), measured.value_range)),
        Path(measured.source.names[index]).name,
        names[predictions.targets[i]],
        [
            (names[c], float(p))
            for c, p in zip(predictions.classes[i], predictions.probs[i], strict=True)
        ],
    )
