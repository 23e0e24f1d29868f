"""The page of a classifier: its training, its evaluation, and examples of its predictions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convnextv2.console import say
from convnextv2.data.notices import left_out_line
from convnextv2.data.sources import find_sources
from convnextv2.data.split_names import kind_of
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.evaluation.page import Example, build_page, write_page
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import Measured, evaluate_weights, same_data
from convnextv2.tasks.masked.gallery import run_gallery
from convnextv2.tasks.title import title
from convnextv2.weights.hub import repository_of
from convnextv2.weights.opened import Weights, open_weights

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
    if find_sources(recipe, labelled=True)[1] is None:
        write_page(run.report, _page(run, None, recipe, init))
        return None
    weights = open_run_weights(find_weights(run.path))
    measured = evaluate_weights(weights, recipe, Place(place.device))
    if measured.skipped:
        say(f"{left_out_line(measured.skipped, 'validation image')}.")
    write_evaluation_report(weights.path, measured, recipe, init)
    return measured.evaluation


def write_evaluation_report(
    weights: Path, measured: Measured, recipe: Recipe, init: Weights | None = None
) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: The path of the weights that were evaluated.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.

    Returns:
        The path of the page. For the weights of a run, it is report.html in the run folder, or
        report-DATA.html beside it if the data are not the run's own. For weights on their own, and
        for MindCV's files in a run, it is inside their folder, or beside the file under the same
        name. For weights in the cache of the Hub, it is in the current folder.
    """
    run = run_of(weights)
    if run and weights.parent != run.path:
        path = run.report if same_data(run.recipe, recipe) else _page_of_data(run, recipe)
    elif repository := repository_of(weights):
        path = Path(f"{repository.rpartition('/')[2]}-report.html")
    else:
        path = (
            weights / "report.html"
            if weights.is_dir()
            else weights.with_name(f"{weights.stem}-report.html")
        )
    write_page(path, _page(run, measured, recipe, init))
    return path


def _page_of_data(run: Run, recipe: Recipe) -> Path:
    """Return the page for other images than the run's own. The run's own page is kept."""
    folder = Path(recipe.data_dir).resolve()
    parts: list[str] = [folder.name if recipe.data_dir else recipe.dataset]
    if recipe.data_dir and kind_of(folder.name):  # every data set has a folder called test
        parts.insert(0, folder.parent.name)
    if recipe.val_split != run.recipe.val_split:
        parts.append(recipe.val_split)
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts)) or "data"
    return run.path / f"report-{name}.html"


def _page(run: Run | None, measured: Measured | None, recipe: Recipe, init: Weights | None) -> str:
    name = str(run.path) if run else "RUN"
    gallery = pretrain_metrics = None
    if init is None and recipe.init and Path(recipe.init).exists():
        init = open_weights(find_weights(recipe.init))
    parent = run_of(init.path) if init else None
    if init and parent and init.description.kind == "fcmae":
        gallery = run_gallery(parent, init)
        pretrain_metrics = parent.metrics()
    summary = {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
    }
    if measured:
        summary["parameters"] = _short(measured.parameters)
        if measured.skipped:
            summary["validation images left out"] = str(len(measured.skipped))
    return build_page(
        title(recipe),
        summary=summary,
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else [],
        evaluation=measured.evaluation if measured else None,
        class_names=measured.description.class_names if measured else [],
        examples=_examples(measured, recipe) if measured else [],
        gallery=gallery,
        channels=_channels(measured, recipe),
        pretrain_metrics=pretrain_metrics,
        next_steps=[
            (f"convnextv2 predict {name} IMAGE_OR_FOLDER", "Classify new images."),
            (
                f"convnextv2 validate {name} --data_dir OTHER",
                "Measure it on other labelled images.",
            ),
            (
                f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr "
                f"{recipe.lr * 2:g}",
                "Try another learning rate.",
            ),
        ],
    )


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


def _short(count: int) -> str:
    """Write a number of parameters with one decimal place: "3.4 M", "7.1 K", or "812"."""
    if count < 1000:
        return str(count)
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} K"


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
