"""The page of a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convnextv2.console import say
from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import Objects, objects_of
from convnextv2.data.dense.rle import Rle
from convnextv2.data.notices import say_left_out
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.detection import DetectionEvaluation, FoundObjects
from convnextv2.evaluation.detection_sections import (
    DrawnImage,
    detection_headline,
    detection_sections,
)
from convnextv2.evaluation.drawing import DrawnObject, colour_of, draw_objects
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.detection.measure import (
    SHOWN_FROM,
    Matches,
    MeasuredObjects,
    evaluate_detector,
    match_objects,
)
from convnextv2.tasks.supervised.page import page_of, pretraining, short
from convnextv2.tasks.title import title
from convnextv2.text import typed
from convnextv2.weights.opened import Weights

_WORST = 12
"""Number of images that are shown."""
_WRONG = (220, 40, 40)


def report_detection(
    run: Run, place: Place, init: Weights | None = None, *, validated: bool
) -> DetectionEvaluation | None:
    """Evaluate the best weights of a finished run, and write its report.

    Args:
        run: The run.
        place: This rank. The other ranks take no part in the report.
        init: The weights that the run was started from, if they are open.
        validated: Whether there are validation images.

    Returns:
        The evaluation, or None if there are no validation images.
    """
    recipe = run.recipe
    if not validated:
        page = build_page(
            title(recipe),
            summary={"model": recipe.model.removeprefix("convnextv2_")},
            recipe=recipe.model_dump(),
            metrics=run.metrics(),
            channels=recipe.in_channels,
            next_steps=_next_steps(str(run.path), recipe),
        )
        write_page(run.report, page)
        return None
    weights = open_run_weights(find_weights(run.path))
    measured = evaluate_detector(weights, recipe, Place(place.device))
    say_left_out(measured.skipped, "validation image")
    write_detection_report(weights.path, measured, recipe, init)
    return measured.evaluation


def write_detection_report(
    weights: Path, measured: MeasuredObjects, recipe: Recipe, init: Weights | None = None
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
    names = measured.description.class_names
    channels: int = measured.description.arguments["in_channels"]
    summary = detection_headline(measured.evaluation) | {
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
        sections=detection_sections(
            measured.evaluation, names, _worst(measured, recipe, channels), SHOWN_FROM
        ),
        gallery=gallery,
        channels=channels,
        pretrain_metrics=pretrain_metrics,
        next_steps=_next_steps(str(run.path) if run else "RUN", recipe),
    )
    write_page(path, page)
    return path


def _next_steps(name: str, recipe: Recipe) -> list[tuple[str, str]]:
    """Return commands that make sense after a training, and what each is good for."""
    name = typed(name)
    return [
        (f"convnextv2 predict {name} IMAGE_OR_FOLDER --out found", "Find objects in new images."),
        (f"convnextv2 validate {name} --val_split test", "Measure it on another split."),
        (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
        (
            f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr {recipe.lr * 2:g}",
            "Try another learning rate.",
        ),
    ]


def _worst(measured: MeasuredObjects, recipe: Recipe, channels: int) -> list[DrawnImage]:
    """Draw the images with the most mistakes."""
    table = objects_of(measured.source)
    matches = [match_objects(table[each.index], each) for each in measured.found]
    order = np.argsort([-each.mistakes for each in matches], kind="stable").tolist()
    drawn = []
    for i in order[:_WORST]:
        found = measured.found[i]
        try:
            pixels = measured.source.pixels(found.index, channels, recipe.value_range)
        except DataError as error:  # damaged or deleted since the evaluation
            say(f"An example is left out of the report: {error}")
            continue
        picture = to_picture(pixels)
        objects = table[found.index]
        if picture.size != objects.size[::-1]:  # it was enlarged
            picture = picture.resize(objects.size[::-1])
        each = matches[i]
        drawn.append(
            DrawnImage(
                draw_objects(
                    picture, _drawn(objects, found, each, measured.description.class_names)
                ),
                Path(measured.source.names[found.index]).name,
                int(each.is_right.sum()),
                int((~each.is_right).sum()),
                len(each.missed),
            )
        )
    return drawn


def _drawn(
    objects: Objects, found: FoundObjects, matches: Matches, names: list[str]
) -> list[DrawnObject]:
    """Describe what is drawn: what was found, and what was missed."""
    drawn = []
    for row, is_right in zip(matches.shown.tolist(), matches.is_right.tolist(), strict=True):
        label = int(found.labels[row])
        text = f"{names[label]} {found.scores[row]:.0%}"
        mask = found.masks[row] if found.masks is not None else None
        colour = colour_of(label) if is_right else _WRONG
        drawn.append(DrawnObject(found.boxes[row], "" if is_right else text, colour, mask))
    for row in matches.missed.tolist():
        label = int(objects.labels[row])
        drawn.append(
            DrawnObject(objects.boxes[row], "", colour_of(label), _mask(objects, row), dashed=True)
        )
    return drawn


def _mask(objects: Objects, row: int) -> Rle | None:
    region = objects.regions[row]
    if region is None or isinstance(region, Rle):
        return region
    return rle.from_polygons(region, objects.size)
