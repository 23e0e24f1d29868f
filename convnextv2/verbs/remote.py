"""Predict with a model on a server."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convnextv2.data.dense.rle import Rle
from convnextv2.data.folders import files
from convnextv2.data.source import Source
from convnextv2.errors import RecipeError, ServerError
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.inference.object_predictions import ObjectFolder
from convnextv2.inference.segmentation_files import SegmentationFiles
from convnextv2.recipe.knobs import Recipe
from convnextv2.server.client import describe_remotely, predict_remotely
from convnextv2.verbs.options.predicting import PredictOptions


def key_of(options: PredictOptions) -> str:
    """Return the API key of the server."""
    return options.api_key or os.environ.get("CONVNEXTV2_API_KEY", "")


def described(options: PredictOptions) -> dict[str, Any]:
    """Ask the server to describe the model; empty if it does not."""
    return describe_remotely(options.server, str(options.run), api_key=key_of(options))


def predict_by_server(
    options: PredictOptions,
    recipe: Recipe,
    model: Mapping[str, Any],
    on_bad: Callable[[str, str], object],
) -> Iterator[dict[str, Any]]:
    """Send images to a server, and yield its predictions.

    Args:
        options: The options of the verb.
        recipe: Its bad_images and max_image_pixels are used.
        model: The server's description of the model.
        on_bad: Called with the name of each image that the server cannot read, and the reason.

    Yields:
        What `predict` returns for each image.
    """
    knobs = options.knob_values
    if options.prior != "trained":
        raise RecipeError(
            f"prior = {options.prior}: the server uses the prior of its model. Leave prior out, "
            "or export the model with it."
        )
    if wrong := sorted(knobs.keys() - {"bad_images"}):
        raise RecipeError(
            f"{wrong[0]} = {knobs[wrong[0]]}: the server decides this. Leave {wrong[0]} out."
        )
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    names = source.names
    kind = model.get("kind", "")
    finish = {"segmentation": _segmented, "detection": _detected}.get(kind)
    complaints, answered = list[str](), set[str]()
    found = predict_remotely(
        options.server,
        str(options.run),
        names,
        top_k=options.top_k,
        ask=_asked(options, kind),
        api_key=key_of(options),
        on_bad=None if recipe.bad_images == "fail" else complaints.append,
    )
    results = _noted(found, answered)
    if finish:
        results = finish(options, source, results, list(model.get("class_names", ())))
    yield from results
    failed = [name for name in names if name not in answered]
    for name, complaint in zip(failed, complaints, strict=False):  # in the order of the files
        on_bad(name, complaint.removeprefix(f"{name}: "))


def _asked(options: PredictOptions, kind: str) -> str:
    """Return the last part of the URL's path, with the query."""
    if kind == "segmentation":
        return "segment" + ("?map=png" if options.out else "")
    if kind == "detection":
        return f"detect?threshold={options.threshold}&masks=rle"
    return ""


def _noted(results: Iterator[dict[str, Any]], names: set[str]) -> Iterator[dict[str, Any]]:
    for result in results:
        names.add(result["image"])
        yield result


def _segmented(
    options: PredictOptions,
    source: Source,
    results: Iterator[dict[str, Any]],
    class_names: list[str],
) -> Iterator[dict[str, Any]]:
    """Turn a segmentor's answers into those of `verbs.segment`, and write the same files."""
    index = {name: i for i, name in enumerate(source.names)}
    out = None
    for result in results:
        name = result["image"]
        with _only_our_answers(options):
            answer = {
                "image": name,
                "height": result["height"],
                "width": result["width"],
                "classes": [
                    {"class": each["class"], "share": each["share"]} for each in result["classes"]
                ],
            }
        if options.out:
            if out is None:
                out = SegmentationFiles(Path(options.out), class_names)
            pixels = source.pixels(index[name])
            with _only_our_answers(options):
                classes = _map_of(result, (int(pixels.shape[-2]), int(pixels.shape[-1])))
            answer |= out.write(name, pixels, classes)
        yield answer


@contextmanager
def _only_our_answers(options: PredictOptions) -> Iterator[None]:
    """Raise ServerError if the block reads an answer that is not one of a convnextv2 server."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OSError):
        raise ServerError(
            f"{options.server}: its answer is not that of a convnextv2 server. Check the address."
        ) from None


def _map_of(result: dict[str, Any], size: tuple[int, int]) -> Tensor:
    """Read the map of classes, int16 (H, W), at the size of the image."""
    with Image.open(io.BytesIO(base64.b64decode(result["map"]["png"]))) as picture:
        values = np.array(picture).astype(np.int16)
    rows, columns = (
        (2 * np.arange(side) + 1) * old // (2 * side)
        for side, old in zip(size, values.shape, strict=True)
    )
    return torch.from_numpy(values[rows][:, columns])


def _detected(
    options: PredictOptions,
    source: Source,
    results: Iterator[dict[str, Any]],
    class_names: list[str],
) -> Iterator[dict[str, Any]]:
    """Turn a detector's answers into those of `verbs.detect`, and write the same files."""
    index = {name: i for i, name in enumerate(source.names)}
    out = ObjectFolder(Path(options.out), class_names, source.names) if options.out else None
    for result in results:
        with _only_our_answers(options):
            answer = {name: result[name] for name in ("image", "width", "height", "objects")}
            found = _found(answer["objects"], class_names, index[answer["image"]])
        if out is not None:
            out.add(answer, found, source)
        yield answer
    if out is not None:
        print(f"Objects: {out.close()}", file=sys.stderr)


def _found(objects: list[dict[str, Any]], names: Sequence[str], index: int) -> FoundObjects:
    """Turn the objects that the server has found into those of a local detector."""
    number = {name: i for i, name in enumerate(names)}
    masks = None
    if objects and all("mask" in each for each in objects):
        masks = tuple(
            Rle(each["mask"]["counts"].encode(), tuple(each["mask"]["size"])) for each in objects
        )
    return FoundObjects(
        index,
        np.array([each["box"] for each in objects], np.float64).reshape(-1, 4),
        np.array([each["score"] for each in objects], np.float64),
        np.array([number[each["class"]] for each in objects], np.int64),
        masks,
    )
