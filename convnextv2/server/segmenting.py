"""Segment images for the server: from an image to the JSON of its answer."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from convnextv2.data.dense import rle
from convnextv2.deploy.artifact import Artifact
from convnextv2.errors import MissingPackageError
from convnextv2.evaluation.overlay import class_colours, index_picture, overlay
from convnextv2.inference.dense import open_pixel_classifier
from convnextv2.inference.pixel_classifier import shares_of
from convnextv2.server.answers import AnswerBudget, css_colour, png_text, reduced_size
from convnextv2.server.decoders import Prepared
from convnextv2.server.refusal import Refusal
from convnextv2.server.whole_images import WholeImages, facts_of
from convnextv2.weights.opened import Weights


class WantedMaps(BaseModel):
    """The parts of an answer that a client wants for each image."""

    model_config = ConfigDict(extra="forbid")  # a mistyped name would have no effect

    map: Literal["none", "png", "rle"] = Field(
        "none",
        description="Also return the class of every pixel: as a PNG file of class numbers in "
        "base64 (png), or as a run-length code of each class (rle).",
    )
    map_side: int = Field(
        0,
        ge=0,
        le=65536,
        description="The longest side of the map, in pixels; 0 for that of the image.",
    )
    overlay: bool = Field(
        False,
        description="Also return a PNG file in base64 that shows the classes over the image, at "
        "the size that the network sees.",
    )


class MapModel:
    """A segmentor that writes answers.

    Images are answered one at a time, so that only one map is in memory.

    Args:
        opened: The weights or the artifact.
        device: The device on which PyTorch computes.
        precision: The precision in which PyTorch computes.
        max_pixels: The largest number of pixels of a map.
    """

    kind: Literal["segmentation"] = "segmentation"
    noun = "segmentor"
    path = "segment"

    def __init__(
        self, opened: Weights | Artifact, *, device: str, precision: str, max_pixels: int
    ) -> None:
        pixel_classifier = open_pixel_classifier(opened, device=device, precision=precision)
        self.pixel_classifier, self._max_pixels = pixel_classifier, max_pixels
        self.class_names = pixel_classifier.class_names
        self.transform = WholeImages(pixel_classifier.preprocessing, pixel_classifier.prepare)
        self.notes = list(opened.lines())
        engine = f"PyTorch on {pixel_classifier.device}"
        self.sha256, self.engine, self.certificate = facts_of(opened, engine)
        if tuple(pixel_classifier.windows.scales) != (1.0,):
            # Images of other sizes would have to be kept until they are answered.
            self.notes.append("Images are seen at one size here; test_scales are for validate.")
        self._colours = class_colours(len(self.class_names))

    def __call__(
        self, prepared: Prepared, wanted: WantedMaps, title: str, budget: AnswerBudget
    ) -> bytes:
        """Answer for one image.

        Args:
            prepared: The image.
            wanted: The parts of the answer that the client wants.
            title: The name of the image.
            budget: The size that the rest of the answer may have.

        Returns:
            JSON as `schemas.SegmentedImage` describes it.

        Raises:
            Refusal: The answer is too large, or a package is missing.
        """
        size = reduced_size(prepared.size, self._max_pixels)
        classes = self.pixel_classifier.classify_prepared(prepared.pixels, size)
        found: dict[str, Any] = {
            "image": title,
            "height": prepared.size[0],
            "width": prepared.size[1],
            "classes": [
                {
                    "class": self.class_names[k],
                    "index": k,
                    "share": share,
                    "colour": css_colour(self._colours[k].tolist()),
                }
                for k, share in shares_of(classes, len(self.class_names))
            ],
        }
        if wanted.map != "none":
            found["map"] = self._map(_reduced_to(classes, wanted.map_side), wanted.map)
        if wanted.overlay:
            seen = prepared.pixels.shape[-2], prepared.pixels.shape[-1]
            picture = overlay(prepared.pixels, _nearest(classes, seen), len(self.class_names))
            found["overlay"] = png_text(picture)
        return budget.write(found)

    def warm_up(self) -> None:
        """Answer for a grey image."""
        how = self.transform.preprocessing
        grey = torch.full((how.channels, *how.image_size), 128, dtype=torch.uint8)
        self.pixel_classifier.classify_prepared(grey, how.image_size)

    def _map(self, classes: Tensor, form: str) -> dict[str, Any]:
        answer: dict[str, Any] = {"height": classes.shape[0], "width": classes.shape[1]}
        if form == "png":
            return answer | {"png": png_text(index_picture(classes, len(self.class_names)))}
        try:
            codes = class_codes(classes.numpy())
        except MissingPackageError as error:
            raise Refusal(422, "invalid_value", f"map: {error} Or ask for png.") from None
        return answer | {
            "rle": [
                {"class": self.class_names[k], "index": k, "counts": code}
                for k, code in codes.items()
            ]
        }


def class_codes(classes: NDArray[np.int16]) -> dict[int, str]:
    """Return the run-length code of each class that occurs in a map.

    Args:
        classes: int16 (H, W).

    Returns:
        The code of each class, in COCO's compressed form.

    Raises:
        MissingPackageError: faster-coco-eval is not installed.
    """
    height, width = classes.shape
    values = classes.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])
    ends = np.append(starts[1:], values.size)
    of = values[starts]
    codes = {}
    for k in np.unique(of).tolist():
        places = np.stack([starts[of == k], ends[of == k]], 1).ravel()
        runs = np.diff(np.concatenate([[0], places, [values.size]])).tolist()
        code = rle.from_counts(runs if runs[-1] else runs[:-1], (height, width))
        codes[k] = code.counts.decode("ascii")
    return codes


def _reduced_to(classes: Tensor, longest: int) -> Tensor:
    """Reduce a map (H, W) so that no side is longer than `longest` pixels; 0 for no limit."""
    height, width = classes.shape
    if not longest or max(height, width) <= longest:
        return classes
    scale = longest / max(height, width)
    return _nearest(classes, (max(1, round(height * scale)), max(1, round(width * scale))))


def _nearest(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (H, W): each pixel gets the class at its centre."""
    rows, columns = (
        (2 * torch.arange(side) + 1) * old // (2 * side)
        for side, old in zip(size, classes.shape, strict=True)
    )
    return classes[rows][:, columns]
