"""Predict with a detector: boxes, classes and masks of the objects in images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from convnextv2.data.folders import files
from convnextv2.deploy.artifact import Artifact
from convnextv2.inference.dense import open_finder
from convnextv2.inference.object_predictions import ObjectFolder, find_in_images
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs.options.predicting import PredictOptions
from convnextv2.weights.opened import Weights


def detect(
    opened: Weights | Artifact,
    options: PredictOptions,
    recipe: Recipe,
    on_bad: Callable[[str, str], object],
) -> Iterator[dict[str, Any]]:
    """Find the objects in images, and write pictures and COCO's JSON if `out` is given.

    Args:
        opened: The weights or the artifact of a detector.
        options: The options of the verb.
        recipe: Its device, precision, workers, bad_images, max_image_pixels and kernels are used.
        on_bad: Called with the name of each image that is left out, and the reason.

    Yields:
        `{"image": name, "width": px, "height": px, "objects": [{"class": name, "score": score,
        "box": [x0, y0, x1, y1], "mask": run-length code}, ...]}`, the best object first. Masks are
        included if the detector finds them.

    Raises:
        DataError: An image cannot be read, and `bad_images` is "fail".
        MissingPackageError: The detector finds masks, and faster-coco-eval is not installed.
    """
    choice.choose(recipe.kernels)
    finder = open_finder(opened, device=recipe.device, precision=recipe.precision)
    for line in opened.lines():
        print(line, file=sys.stderr)
    if idle := options.changed("top_k", "prior"):
        print(f"No effect here: {', '.join(idle)} (objects get one class).", file=sys.stderr)
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    out = None
    if options.out:
        out = ObjectFolder(Path(options.out), finder.class_names, source.names)
    else:
        print("Set --out FOLDER to write pictures and COCO's JSON.", file=sys.stderr)
    found = find_in_images(finder, source, recipe, threshold=options.threshold, on_bad=on_bad)
    for answer, objects in found:
        if out is not None:
            out.add(answer, objects, source)
        yield answer
    if out is not None:
        print(f"Objects: {out.close()}", file=sys.stderr)
