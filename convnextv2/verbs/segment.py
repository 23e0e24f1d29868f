"""Predict with a segmentor: a class for every pixel of images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from convnextv2.data.folders import files
from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import DataError, MissingPackageError
from convnextv2.inference.dense import open_pixel_classifier
from convnextv2.inference.segmentation_files import SegmentationFiles
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs.options.predicting import PredictOptions
from convnextv2.weights.opened import Weights


def segment(
    opened: Weights | Artifact,
    options: PredictOptions,
    recipe: Recipe,
    on_bad: Callable[[str, str], object],
) -> Iterator[dict[str, Any]]:
    """Give a class to every pixel of images, and write pictures of that if `out` is given.

    Args:
        opened: The weights or the artifact of a segmentor.
        options: The options of the verb.
        recipe: Its device, precision, bad_images and max_image_pixels count.
        on_bad: Called with name and reason for each image that is left out.

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
    if idle := options.changed("top_k", "prior"):
        print(f"No effect here: {', '.join(idle)} (pixels get one class).", file=sys.stderr)
    out = (
        SegmentationFiles(Path(options.out), pixel_classifier.class_names) if options.out else None
    )
    if out is None:
        print("Set --out FOLDER to write an overlay and a map of indices.", file=sys.stderr)
    how = pixel_classifier.preprocessing
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line, file=sys.stderr)
    for index, name in enumerate(source.names):
        try:
            pixels = source.pixels(index, how.channels, how.value_range)
        except MissingPackageError:
            raise
        except DataError as error:
            if recipe.bad_images == "fail":
                raise DataError(
                    f"{name}: {str(error).removeprefix(f'{name}: ')} Mend or replace the file, or "
                    "set bad_images = skip."
                ) from None
            on_bad(name, str(error).removeprefix(f"{name}: "))
            continue
        classes = pixel_classifier(pixels)
        counts = torch.bincount(
            classes.flatten().long(), minlength=len(pixel_classifier.class_names)
        )
        order = counts.argsort(descending=True, stable=True).tolist()
        yield {
            "image": name,
            "height": classes.shape[0],
            "width": classes.shape[1],
            "classes": [
                {
                    "class": pixel_classifier.class_names[k],
                    "share": int(counts[k]) / classes.numel(),
                }
                for k in order
                if counts[k]
            ],
            **(out.write(name, pixels, classes) if out else {}),
        }
