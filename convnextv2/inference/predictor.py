"""The predictor: images of any kind to named predictions, for Python programs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.data.decode import decode, from_pillow
from convnextv2.data.decode.arrays import from_array
from convnextv2.data.folders import files
from convnextv2.data.source import MAX_PIXELS
from convnextv2.errors import DataError, RecipeError
from convnextv2.inference.result import result_of
from convnextv2.inference.scorer import Scorer, Scores, open_scorer
from convnextv2.recipe.prior import Prior
from convnextv2.recipe.values import show

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | Tensor
"""An image in any of the forms that a predictor accepts.

It is the path of a file or folder, the bytes of an image file, a Pillow image, an array (H, W) or
(H, W, C), or a tensor (C, H, W). Arrays and tensors are uint8 or uint16. For a model with a
value_range they may be of any type."""


class Predictor:
    """A classifier for images in any form. Threads may share it.

        predictor = Predictor("runs/shoes")
        predictor(["a.jpg", "folder/", Image.open("b.png")], top_k=3)

    Args:
        source: A run folder, checkpoint, weights file or artifact.
        device: Where PyTorch computes: auto, cpu, cuda, ... An artifact runs on the CPU.
        precision: PyTorch's arithmetic: auto, float32, bfloat16 or float16. An artifact has its
            own.
        batch_size: How many images are scored at once.
        max_image_pixels: The largest image that is decoded.
        prior: The frequencies of the classes for which probabilities hold: "trained", "natural",
            "balanced", or a number; see docs/how-to/unbalanced.md. An artifact has its own.

    Raises:
        ConvNeXtV2Error: The source cannot be opened or is not a classifier, or the batch size is
            wrong.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | torch.device = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        max_image_pixels: int = MAX_PIXELS,
        prior: Prior = "trained",
    ) -> None:
        _check_count("batch_size", batch_size)
        self.scorer: Scorer = open_scorer(source, device=device, precision=precision, prior=prior)
        self.batch_size, self.max_image_pixels = batch_size, max_image_pixels

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, top_k: int = 5
    ) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: One image, or several.
            top_k: How many classes of each image to return, if an image has one class.

        Returns:
            One dictionary for each image, as `predict` returns it: "image" is its name, and
            "predictions" lists {"class": name, "prob": probability} with the most probable class
            first. For a model that gives an image any number of labels, "labels" and "scores" take
            the place of "predictions"; see `answer.labels_of`. For a model that was fitted with a
            coverage, there are also "possible", "foreign" and "foreignness"; see
            `answer.result_of`. Images without a name are numbered.

        Raises:
            DataError: Something is not an image.
            RecipeError: top_k is wrong.
        """
        _check_count("top_k", top_k)
        results = []
        for names, scores in self.scores(images):
            results += [
                {"image": name, **result_of(self.scorer, scores.row(i), top_k)}
                for i, name in enumerate(names)
            ]
        return results

    def scores(self, images: ImageLike | Sequence[ImageLike]) -> Iterator[tuple[list[str], Scores]]:
        """Score images batch by batch.

        Args:
            images: One image, or several.

        Yields:
            The names of the images of a batch, and their scores.

        Raises:
            DataError: Something is not an image.
        """
        names: list[str] = []
        batch: list[Tensor] = []
        for name, pixels in self._decoded(_as_several(images)):
            names.append(name)
            batch.append(self.scorer.transform(pixels))
            if len(batch) == self.batch_size:
                yield names, self.scorer(torch.stack(batch))
                names, batch = [], []
        if batch:
            yield names, self.scorer(torch.stack(batch))

    def _decoded(self, images: Iterable[ImageLike]) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the pixels, uint8 (C, H, W), of each image."""
        channels, value_range = (
            self.scorer.transform.preprocessing.channels,
            self.scorer.transform.preprocessing.value_range,
        )
        for number, image in enumerate(images):
            name = f"image {number}"
            if isinstance(image, str | Path):
                source = files([image], max_pixels=self.max_image_pixels)
                for index, path in enumerate(source.names):
                    yield path, source.pixels(index, channels, value_range)
            elif isinstance(image, bytes | bytearray | memoryview):
                yield (
                    name,
                    decode(
                        bytes(image),
                        name=name,
                        channels=channels,
                        max_pixels=self.max_image_pixels,
                        value_range=value_range,
                    ),
                )
            elif isinstance(image, Image.Image):
                yield name, from_pillow(image, channels, value_range, name=name)
            elif isinstance(image, Tensor | np.ndarray):
                yield name, _as_pixels(image, name, channels, value_range)
            else:
                raise DataError(
                    f"{name}: is of type {type(image).__name__}. Expected a path, bytes, Pillow "
                    "image, array or tensor."
                )


def _as_several(images: ImageLike | Sequence[ImageLike]) -> Iterable[ImageLike]:
    """Return the images as a sequence, even if a single one is given.

    An open file counts as one thing. Otherwise, its lines would be taken for images.
    """
    one = (str, Path, bytes, bytearray, memoryview, Image.Image, Tensor, np.ndarray, io.IOBase)
    return [images] if isinstance(images, one) or not isinstance(images, Iterable) else images


def _check_count(name: str, value: object) -> None:
    """Raise RecipeError unless a value is a whole number from 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise RecipeError(f"{name} = {show(value)}: expected a whole number >= 1.")


def _as_pixels(
    image: Tensor | NDArray[Any],
    name: str,
    channels: int,
    value_range: tuple[float, float] | None,
) -> Tensor:
    """Turn an array or tensor into pixels, by the rules that hold for files.

    Args:
        image: An array (H, W) or (H, W, C), or a tensor (C, H, W), of uint8 or uint16; with a
            value_range of any type.
        name: The image's name, for messages.
        channels: How many channels the network takes.
        value_range: The values that become 0 and 255; unused for uint8.

    Returns:
        uint8 (channels, H, W). Grey is repeated and colours are mixed to luma, as for files.

    Raises:
        DataError: The image has another shape, type or number of channels.
    """
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if isinstance(image, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    elif array.ndim == 2 and not isinstance(image, Tensor):
        array = array[..., None]
    # Floats without a range would be scaled by the range of each image, and may be normalised
    # already.
    is_known = array.dtype in (np.uint8, np.uint16) or (
        value_range is not None and array.dtype.kind in "uif"
    )
    if array.ndim != 3 or not array.size or not is_known:
        raise DataError(
            f"{name}: {image.dtype} of shape {tuple(image.shape)}. Expected uint8 (or uint16, or "
            "with a value_range any type), an array (H, W) or (H, W, C) or a tensor (C, H, W) with "
            f"{channels} channels."
        )
    return from_array(array, channels, value_range, name=name)
