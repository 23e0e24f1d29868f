"""The page of a classifier: its training, its evaluation, and examples of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from convnextv2.console import say
from convnextv2.data.notices import say_left_out
from convnextv2.data.sources import find_sources
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.balance import statement
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.intervals import with_intervals
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.evaluation.page import Example, build_page, write_page
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import Measured, evaluate_weights
from convnextv2.tasks.classification.teacher import summarise_teacher
from convnextv2.tasks.supervised.page import next_steps, page_of, pretraining, short
from convnextv2.tasks.title import title
from convnextv2.weights.opened import Weights

_EXAMPLES = 8
"""Number of right predictions that are shown, and of wrong ones."""


def report_training(run: Run, place: Place, init: Weights | None = None) -> Evaluation | None:
    """Evaluate the best weights of a finished run on its validation images, and write its report.

    Args:
        run: The run.
        place: This rank. The other ranks take no part in the report.
        init: The weights that the run was started from, if they are open.

    Returns:
        The evaluation, or None if there are no validation images.
    """
    recipe = run.recipe
    teacher = summarise_teacher(recipe, Place(place.device))
    if find_sources(recipe, labelled=True)[1] is None:
        write_page(run.report, _page(run, None, recipe, init, teacher))
        return None
    weights = open_run_weights(find_weights(run.path))
    measured = evaluate_weights(weights, recipe, Place(place.device))
    measured = replace(measured, evaluation=with_intervals(measured.evaluation))
    say_left_out(measured.skipped, "validation image")
    write_evaluation_report(weights.path, measured, recipe, init, teacher)
    return measured.evaluation


def write_evaluation_report(
    weights: Path,
    measured: Measured,
    recipe: Recipe,
    init: Weights | None = None,
    teacher: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: The path of the weights that were evaluated.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
        teacher: Entries of the summary that say who the teacher was; see `summarise_teacher`.

    Returns:
        The path of the page. For the weights of a run, it is report.html in the run folder, or
        report-DATA.html beside it if the data are not the run's own. For weights on their own, and
        for MindCV's files in a run, it is inside their folder, or beside the file under the same
        name. For an artifact, it is inside its folder. For weights in the cache of the Hub, it is
        in the current folder.
    """
    path, run = page_of(weights, recipe), run_of(weights)
    write_page(path, _page(run, measured, recipe, init, teacher))
    return path


def _page(
    run: Run | None,
    measured: Measured | None,
    recipe: Recipe,
    init: Weights | None,
    teacher: Mapping[str, str],
) -> str:
    name = str(run.path) if run else "RUN"
    gallery, pretrain_metrics = pretraining(recipe, init)
    summary = {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
    }
    summary |= _stopped(run, recipe)
    if measured:
        summary["parameters"] = short(measured.parameters)
        if measured.skipped:
            summary["validation images left out"] = str(len(measured.skipped))
        if (found := measured.evaluation.unknown) is not None:
            summary["right class among the possible"] = (
                f"{found.covered:.2%} of {found.images} images (asked: {found.asked:.2%})"
            )
            summary["possible classes, mean"] = f"{found.mean_possible:.2f}"
            summary["foreign images"] = f"{found.foreign:.2%}"
    return build_page(
        title(recipe),
        summary={**summary, **teacher},
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else [],
        evaluation=measured.evaluation if measured else None,
        class_names=measured.description.class_names if measured else [],
        examples=_examples(measured, recipe) if measured else [],
        gallery=gallery,
        channels=_channels(measured, recipe),
        class_counts=measured.description.balance.get("class_counts", ()) if measured else (),
        balance=_balance(measured) if measured else [],
        pretrain_metrics=pretrain_metrics,
        next_steps=next_steps(name, recipe),
    )


def _balance(measured: Measured) -> list[str]:
    """Say how frequent the classes were in training, and are in validation."""
    told = statement(measured.description.balance, measured.description.class_names)
    return [line for line in (told, measured.few) if line]


def _stopped(run: Run | None, recipe: Recipe) -> dict[str, str]:
    """Say in the summary that a run ended before its last epoch."""
    evals = [record for record in run.metrics() if record["kind"] == "eval"] if run else []
    if recipe.patience is None or not evals or evals[-1]["epoch"] >= recipe.epochs or recipe.time:
        return {}
    return {"stopped early, epochs": f"{evals[-1]['epoch']} of {recipe.epochs}"}


def _channels(measured: Measured | None, recipe: Recipe) -> int:
    """Return the number of channels of the images. An artifact states its own."""
    channels: int = (
        measured.description.arguments["in_channels"] if measured else recipe.in_channels
    )
    return channels


def _examples(measured: Measured, recipe: Recipe) -> list[Example]:
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
    examples = []
    for i in [*wrong, *chosen]:
        try:
            examples.append(_example(measured, i, recipe))
        except DataError as error:  # damaged or deleted since the evaluation
            say(f"An example is left out of the report: {error}")
    return examples


def _example(measured: Measured, i: int, recipe: Recipe) -> Example:
    names: Sequence[str] = measured.description.class_names
    predictions = measured.predictions
    index = int(predictions.indices[i])
    return Example(
        to_picture(
            measured.source.pixels(index, _channels(measured, recipe), measured.value_range)
        ),
        Path(measured.source.names[index]).name,
        names[predictions.targets[i]],
        [
            (names[c], float(p))
            for c, p in zip(predictions.classes[i], predictions.probs[i], strict=True)
        ],
    )
