"""The page of a detector."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import Objects, objects_of
from convnextv2.data.dense.rle import Rle
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.evaluation.detection_sections import (
    DrawnImage,
    detection_headline,
    detection_sections,
)
from convnextv2.evaluation.drawing import DrawnObject, colour_of, draw_objects, tag_of
from convnextv2.evaluation.gallery import to_picture
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.detection.measure import (
    SHOWN_FROM,
    Matches,
    MeasuredObjects,
    match_objects,
)
from convnextv2.tasks.page import read_example, run_page, summary_of
from convnextv2.text import typed
from convnextv2.weights.opened import Weights

_WORST = 12
"""Number of images that are shown."""
_WRONG = (220, 40, 40)


def detection_page(
    run: Run | None, measured: MeasuredObjects, recipe: Recipe, init: Weights | None
) -> str:
    """Build the page of an evaluation as HTML.

    Args:
        run: The run that was evaluated; None for weights on their own.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
    """
    names = measured.description.class_names
    channels: int = measured.description.arguments["in_channels"]
    return run_page(
        run,
        recipe,
        init,
        summary=detection_headline(measured.evaluation) | summary_of(recipe, measured),
        channels=channels,
        next_steps=next_steps(str(run.path) if run else "RUN", recipe.lr),
        sections=detection_sections(
            measured.evaluation, names, _worst(measured, channels, recipe.value_range), SHOWN_FROM
        ),
    )


def next_steps(name: str, lr: float) -> list[tuple[str, str]]:
    """Return commands that make sense after training, and the purpose of each."""
    name = typed(name)
    return [
        (f"convnextv2 predict {name} IMAGE_OR_FOLDER --out found", "Find objects in new images."),
        (f"convnextv2 validate {name} --val_split test", "Measure it on another split."),
        (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
        (
            f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr {lr * 2:g}",
            "Try another learning rate.",
        ),
    ]


def _worst(
    measured: MeasuredObjects, channels: int, value_range: tuple[float, float] | None
) -> list[DrawnImage]:
    """Draw the images with the most mistakes."""
    table = objects_of(measured.source)
    matches = [match_objects(table[each.index], each) for each in measured.found]
    order = np.argsort([-each.mistakes for each in matches], kind="stable").tolist()
    drawn = []
    for i in order[:_WORST]:
        found = measured.found[i]
        pixels = read_example(partial(measured.source.pixels, found.index, channels, value_range))
        if pixels is None:
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
        text = tag_of(names, label, found.scores[row])
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
