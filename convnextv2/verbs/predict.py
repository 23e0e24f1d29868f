"""Classify images with a trained model."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnextv2.data.loader import EvaluationLoader, resolve_workers
from convnextv2.data.sources import files
from convnextv2.deploy.client import predict_remotely
from convnextv2.deploy.predictor import top
from convnextv2.deploy.scorer import open_scorer
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import INFERENCE
from convnextv2.recipe.read import read_recipe
from convnextv2.text import plain


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top_k: str | int = 5,
    json: bool = False,
    server: str = "",
    api_key: str = "",
    **knobs: Any,
) -> list[dict[str, Any]]:
    """Print the most probable classes of images, and return them.

    run: a run folder, checkpoint, weights file or artifact. images: files, or folders of them. top_k: how many classes. json:
    print one JSON object per image. server: the address of a server that does the work; run is then a model's name there, and
    api_key its key (or the environment's CONVNEXTV2_API_KEY). knobs: device, precision, batch_size, workers, bad_images,
    max_image_pixels; with server bad_images only.
    Returns a list of {"image": name, "predictions": [{"class": name, "prob": probability}, ...]}."""
    recipe, notes = read_recipe(knobs, verb="predict", uses=INFERENCE)
    for note in notes:
        print(note, file=sys.stderr)
    count = _whole(top_k)
    given = [images] if isinstance(images, str | Path) else images
    if server:
        if wrong := sorted(knobs.keys() - {"bad_images"}):
            raise RecipeError(f"{wrong[0]} = {knobs[wrong[0]]}: the server decides on that itself. Leave {wrong[0]} out.")
        key = api_key or os.environ.get("CONVNEXTV2_API_KEY", "")
        names = files(given, max_pixels=recipe.max_image_pixels).names
        results, skipped = [], list[str]()
        on_bad = skipped.append if recipe.bad_images == "skip" else None
        for result in predict_remotely(server, str(run), names, top_k=count, api_key=key, on_bad=on_bad):
            results.append(result)
            _show(result, json)
        for line in skipped:
            print(f"{line} Skipped.", file=sys.stderr)
        return results
    scorer = open_scorer(run, device=recipe.device, precision=recipe.precision)
    for line in scorer.notes:
        print(line, file=sys.stderr)  # the output is for machines, too
    transform = scorer.transform
    source = files(given, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    loader = EvaluationLoader(
        source,
        transform,
        batch_size=recipe.images_per_batch(),
        channels=transform.channels,
        # A handful of images is decoded faster than workers start.
        workers=resolve_workers(recipe.workers)[0] if len(source) > 2 * recipe.images_per_batch() else 0,
        bad_images=recipe.bad_images,
    )
    results = []
    for batch in loader:
        for index, probs in zip(batch.indices.tolist(), scorer(batch.pixels).probs, strict=True):
            results.append({"image": source.names[index], "predictions": top(probs, scorer.class_names, count)})
            _show(results[-1], json)
    for name in sorted(loader.skipped):
        print(f"{name}: not readable, skipped.", file=sys.stderr)
    return results


def _whole(top_k: str | int) -> int:
    try:
        count = int(top_k)
    except ValueError:
        count = 0
    if count < 1:
        raise RecipeError(f"top_k = {top_k}: expected a number >= 1.")
    return count


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        print(json_format.dumps(result))
        return
    print(plain(result["image"]))
    for prediction in result["predictions"]:
        print(f"  {prediction['prob']:7.2%}  {plain(prediction['class'])}")
