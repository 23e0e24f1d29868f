"""Classify images with a trained model."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convnextv2.data.loader import EvaluationLoader, resolve_workers
from convnextv2.data.named import default_class_names
from convnextv2.data.sources import files
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.distributed import choose_device, choose_precision
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.read import read_recipe
from convnextv2.run import find_weights, open_run_weights
from convnextv2.weights.describe import distinct
from convnextv2.weights.load import restore


def predict(
    run: str | Path, images: str | Path | Sequence[str | Path], *, top_k: int = 5, json: bool = False, **knobs: Any
) -> list[dict[str, Any]]:
    """Print the most probable classes of images, and return them.

    run: a run folder, checkpoint or weights file. images: files, or folders of them. top_k: how many classes. json: print one
    JSON object per image. knobs: device, precision, batch_size, workers, bad_images, max_image_pixels.
    Returns a list of {"image": name, "predictions": [{"class": name, "prob": probability}, ...]}."""
    recipe, _ = read_recipe(knobs)
    if top_k < 1:
        raise RecipeError(f"top_k = {top_k}: expected a number >= 1.")
    weights = find_weights(run)
    opened = open_run_weights(weights)
    for line in opened.lines():
        print(line, file=sys.stderr)  # the output is for machines, too
    model, description = restore(opened), opened.description
    if not isinstance(model, ConvNeXtV2) or model.head is None:
        raise CheckpointError(
            f"{weights}: a pre-trained encoder without a classifier. Train one with: convnextv2 train --init {run}, or see "
            "convnextv2 reconstruct."
        )
    if not description.preprocessing:
        raise CheckpointError(f"{weights}: does not say how its images are prepared. Write it with its preprocessing.")
    device = choose_device(recipe.device)
    dtype = choose_precision(recipe.precision, device)
    model.to(device)
    transform = EvalTransform.from_description(description.preprocessing)
    source = files([images] if isinstance(images, str | Path) else images, max_pixels=recipe.max_image_pixels)
    loader = EvaluationLoader(
        source,
        transform,
        batch_size=recipe.batch_size,
        channels=transform.channels,
        # A handful of images is decoded faster than workers start.
        workers=resolve_workers(recipe.workers)[0] if len(source) > 2 * recipe.batch_size else 0,
        bad_images=recipe.bad_images,
    )
    to_images = BatchTransform(transform.mean, transform.std).normalise
    names = distinct(description.class_names or default_class_names(model.head.out_features))
    results = []
    with torch.inference_mode():
        for batch in loader:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                logits = model(to_images(batch.pixels.to(device)))
            probs, classes = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]))
            for index, row, best in zip(batch.indices.tolist(), probs.tolist(), classes.tolist(), strict=True):
                predictions = [{"class": names[c], "prob": p} for c, p in zip(best, row, strict=True)]
                results.append({"image": source.names[index], "predictions": predictions})
                _show(results[-1], json)
    for name in sorted(loader.skipped):
        print(f"{name}: not readable, skipped.")
    return results


def _show(result: dict[str, Any], json: bool) -> None:
    if json:
        print(json_format.dumps(result))
        return
    print(result["image"])
    for prediction in result["predictions"]:
        print(f"  {prediction['prob']:7.2%}  {prediction['class']}")
