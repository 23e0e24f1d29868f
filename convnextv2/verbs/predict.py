"""Classify images with a trained model."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convnextv2.data.loader import EvaluationLoader, resolve_workers
from convnextv2.data.sources import files
from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import RecipeError
from convnextv2.inference.predictor import top
from convnextv2.inference.scorer import open_scorer
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.server.client import predict_remotely
from convnextv2.text import plain
from convnextv2.verbs.options import PredictOptions
from convnextv2.weights.opened import Weights


@takes(PredictOptions)
def predict(options: PredictOptions) -> list[dict[str, Any]]:
    """Print the most probable classes of images, and return them.

    Returns:
        A list of `{"image": name, "predictions": [{"class": name, "prob": probability}, ...]}`.
    """
    recipe, notes = options.recipe()
    for note in notes:
        print(note, file=sys.stderr)
    if options.server:
        return _predict_remotely(options, recipe)
    results = []
    for result in classify(options.run, options.images, recipe, top_k=options.top_k):
        results.append(result)
        _show(result, options.json)
    return results


def classify(
    classifier: str | Path | Weights | Artifact,
    images: Sequence[str | Path],
    recipe: Recipe,
    *,
    top_k: int,
) -> Iterator[dict[str, Any]]:
    """Classify images on this machine, and name on stderr those that cannot be read.

    Args:
        classifier: A run folder, weights or an artifact. Weights and artifacts may be open already.
        images: Files and folders.
        recipe: Its device, precision, batch_size, workers, bad_images and max_image_pixels count.
        top_k: Number of classes that are named for each image.

    Yields:
        {"image": name, "predictions": [{"class": name, "prob": probability}, ...]} for each image.
    """
    choice.choose(recipe.kernels)
    scorer = open_scorer(classifier, device=recipe.device, precision=recipe.precision)
    for line in scorer.notes:
        print(line, file=sys.stderr)  # other programs may read the output
    transform = scorer.transform
    source = files(images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    loader = EvaluationLoader(
        source,
        transform,
        batch_size=recipe.images_per_batch(),
        channels=transform.preprocessing.channels,
        # Workers take longer to start than a handful of images takes to decode.
        workers=resolve_workers(recipe.workers)[0]
        if len(source) > 2 * recipe.images_per_batch()
        else 0,
        bad_images=recipe.bad_images,
    )
    for batch in loader:
        for index, probs in zip(batch.indices.tolist(), scorer(batch.pixels).probs, strict=True):
            yield {
                "image": source.names[index],
                "predictions": top(probs, scorer.class_names, top_k),
            }
    for name in sorted(loader.skipped):
        print(f"{name}: not readable, skipped.", file=sys.stderr)


def _predict_remotely(options: PredictOptions, recipe: Recipe) -> list[dict[str, Any]]:
    """Let a server classify the images."""
    knobs = options.knob_values
    if wrong := sorted(knobs.keys() - {"bad_images"}):
        raise RecipeError(
            f"{wrong[0]} = {knobs[wrong[0]]}: the server decides on that itself. Leave {wrong[0]} "
            "out."
        )
    key = options.api_key or os.environ.get("CONVNEXTV2_API_KEY", "")
    names = files(options.images, max_pixels=recipe.max_image_pixels).names
    results, skipped = [], list[str]()
    for result in predict_remotely(
        options.server,
        str(options.run),
        names,
        top_k=options.top_k,
        api_key=key,
        on_bad=None if recipe.bad_images == "fail" else skipped.append,
    ):
        results.append(result)
        _show(result, options.json)
    for line in skipped:
        print(f"{line} Skipped.", file=sys.stderr)
    return results


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        print(json_format.dumps(result))
        return
    print(plain(result["image"]))
    for prediction in result["predictions"]:
        print(f"  {prediction['prob']:7.2%}  {plain(prediction['class'])}")
