"""Predict with a segmentor: a class for every pixel of images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.data.folders import files
from convnextv2.data.source import Source
from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import DataError, MissingPackageError
from convnextv2.inference.dense import open_pixel_classifier
from convnextv2.inference.pixel_classifier import shares_of
from convnextv2.inference.segmentation_files import SegmentationFiles
from convnextv2.kernels import choice
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs.options.predicting import PredictOptions
from convnextv2.weights.opened import Weights


def segment(
    opened: Weights | Artifact,
    options: PredictOptions,
    recipe: Recipe,
    on_bad: Callable[[str, str], object],
) -> Iterator[dict[str, Any]]:
    """Give a class to every pixel of images, and write pictures of the result if `out` is given.

    Args:
        opened: The weights or the artifact of a segmentor.
        options: The options of the verb.
        recipe: Its device, precision, bad_images, max_image_pixels and kernels are used.
        on_bad: Called with the name of each image that is left out, and the reason.

    Yields:
        `{"image": name, "height": px, "width": px, "classes": [{"class": name, "share": share of
        the pixels}, ...]}`, the largest share first. With `out`, also the paths "overlay" and
        "index".

    Raises:
        DataError: An image cannot be read, and `bad_images` is "fail".
    """
    choice.choose(recipe.kernels)
    pixel_classifier = open_pixel_classifier(
        opened, device=recipe.device, precision=recipe.precision
    )
    for line in opened.lines():
        print(line, file=sys.stderr)
    if idle := options.changed("top_k", "prior"):
        print(f"No effect here: {', '.join(idle)} (pixels get one class).", file=sys.stderr)
    out = (
        SegmentationFiles(Path(options.out), pixel_classifier.class_names) if options.out else None
    )
    if out is None:
        print("Set --out FOLDER to write an overlay and a map of indices.", file=sys.stderr)
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    names = pixel_classifier.class_names
    for name, pixels in _read(source, pixel_classifier.preprocessing, recipe, on_bad):
        classes = pixel_classifier(pixels)
        yield {
            "image": name,
            "height": classes.shape[0],
            "width": classes.shape[1],
            "classes": [
                {"class": names[k], "share": share} for k, share in shares_of(classes, len(names))
            ],
            **(out.write(name, pixels, classes) if out else {}),
        }


def _read(
    source: Source, how: Preprocessing, recipe: Recipe, on_bad: Callable[[str, str], object]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the pixels, uint8 (C, H, W), of each image that can be read."""
    for index, name in enumerate(source.names):
        try:
            pixels = source.pixels(index, how.channels, how.value_range)
        except MissingPackageError:
            raise
        except DataError as error:
            why = str(error).removeprefix(f"{name}: ")
            if recipe.bad_images == "fail":
                raise DataError(
                    f"{name}: {why} Repair or replace the file, or set bad_images = skip."
                ) from None
            on_bad(name, why)
            continue
        yield name, pixels
