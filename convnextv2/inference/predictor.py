"""Predictor: images of any kind to named predictions, for Python programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convnextv2.data.decode import decode, from_pillow
from convnextv2.data.decode.arrays import from_array
from convnextv2.data.sources import MAX_PIXELS, files
from convnextv2.errors import DataError, RecipeError
from convnextv2.inference.scorer import Scorer, Scores, open_scorer

Picture = str | Path | bytes | Image.Image | NDArray[Any] | Tensor
"""A path of a file or folder, the bytes of an image file, a Pillow image, or values: an array (H, W) or (H, W, C), a tensor
(C, H, W). These are uint8 or uint16; for a model with a value_range of any type."""


class Predictor:
    """A classifier for images in any form. Threads may share it.

    source: a run folder, checkpoint, weights file or artifact. batch_size: images that are scored at once. max_image_pixels: the
    largest image that is decoded. device, precision: see `open_scorer`.

        predictor = Predictor("runs/shoes")
        predictor(["a.jpg", "folder/", Image.open("b.png")], top_k=3)
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        max_image_pixels: int = MAX_PIXELS,
    ) -> None:
        if batch_size < 1:
            raise RecipeError(f"batch_size = {batch_size}: expected a number >= 1.")
        self.scorer: Scorer = open_scorer(source, device=device, precision=precision)
        self.batch_size, self.max_image_pixels = batch_size, max_image_pixels

    def __call__(
        self, images: Picture | Sequence[Picture], *, top_k: int = 5
    ) -> list[dict[str, Any]]:
        """One {"image": name, "predictions": [{"class": name, "prob": probability}, ...]} for each image, as `predict` returns;
        images without a name are numbered. Raises DataError for what is no image."""
        if top_k < 1:
            raise RecipeError(f"top_k = {top_k}: expected a number >= 1.")
        results = []
        for names, scores in self.scores(images):
            results += [
                {"image": name, "predictions": top(row, self.scorer.class_names, top_k)}
                for name, row in zip(names, scores.probs, strict=True)
            ]
        return results

    def scores(self, images: Picture | Sequence[Picture]) -> Iterator[tuple[list[str], Scores]]:
        """Batch by batch, the images' names and what the model says of them."""
        names: list[str] = []
        batch: list[Tensor] = []
        for name, pixels in self._decoded([images] if _is_one(images) else images):  # type: ignore[list-item, arg-type]
            names.append(name)
            batch.append(self.scorer.transform(pixels))
            if len(batch) == self.batch_size:
                yield names, self.scorer(torch.stack(batch))
                names, batch = [], []
        if batch:
            yield names, self.scorer(torch.stack(batch))

    def _decoded(self, images: Iterable[Picture]) -> Iterator[tuple[str, Tensor]]:
        channels, value_range = self.scorer.transform.channels, self.scorer.transform.value_range
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
                    f"{name}: is a {type(image).__name__}. Expected a path, bytes, Pillow image, array or tensor."
                )


def top(probs: NDArray[np.float32], class_names: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """The most probable classes of one image, best first."""
    best = torch.from_numpy(probs).topk(min(top_k, len(probs)))
    return [
        {"class": class_names[c], "prob": p}
        for c, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _is_one(images: object) -> bool:
    return isinstance(
        images, str | Path | bytes | bytearray | memoryview | Image.Image | Tensor | np.ndarray
    )


def _as_pixels(
    image: Tensor | NDArray[Any],
    name: str,
    channels: int,
    value_range: tuple[float, float] | None,
) -> Tensor:
    """Pixels of an array or tensor, by the rules of files.

    Args:
        image: An array (H, W) or (H, W, C), or a tensor (C, H, W), of uint8 or uint16, with a value_range of any type.
        name: The image, for messages.
        channels: That the network takes.
        value_range: The values that become 0 and 255, but for uint8.

    Returns:
        uint8 (channels, H, W); grey is repeated and colours are mixed to luma, as files are.

    Raises:
        DataError: The image has another shape, type or number of channels.
    """
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if isinstance(image, Tensor) and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    elif array.ndim == 2 and not isinstance(image, Tensor):
        array = array[..., None]
    # Floats without a range would be scaled by their own, image by image; they may be normalised already.
    is_known = array.dtype in (np.uint8, np.uint16) or (
        value_range is not None and array.dtype.kind in "uif"
    )
    if array.ndim != 3 or not array.size or not is_known:
        raise DataError(
            f"{name}: {image.dtype} of shape {tuple(image.shape)}. Expected uint8 (or uint16, or with a value_range any "
            f"type), an array (H, W) or (H, W, C) or a tensor (C, H, W) with {channels} channels."
        )
    return from_array(array, channels, value_range, name=name)
