"""Detect objects for the server: from an image to the JSON of its answer."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from convnextv2.data.dense import rle
from convnextv2.data.dense.outlines import outlines
from convnextv2.deploy.artifact import Artifact
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.evaluation.drawing import DrawnObject, colour_of, draw_objects, tag_of
from convnextv2.evaluation.gallery import to_picture
from convnextv2.inference.dense import open_finder
from convnextv2.server.answers import AnswerBudget, css_colour, png_text, reduced_size
from convnextv2.server.decoders import Prepared
from convnextv2.server.whole_images import WholeImages, facts_of
from convnextv2.weights.opened import Weights


class WantedObjects(BaseModel):
    """The parts of an answer that a client wants for each image."""

    model_config = ConfigDict(extra="forbid")  # a mistyped name would have no effect

    threshold: float = Field(
        0, ge=0, le=1, description="Leave out objects whose score is lower than this."
    )
    masks: Literal["none", "rle", "polygons"] = Field(
        "none",
        description="Also return the mask of each object, if the model finds masks: as COCO's "
        "compressed run-length code (rle), which is exact, or as outlines (polygons), which are "
        "within a pixel and have no holes.",
    )
    overlay: bool = Field(
        False,
        description="Also return a PNG file in base64 that shows the objects over the image, at "
        "the size that the network sees.",
    )


class ObjectModel:
    """A detector that writes answers.

    Images are answered one at a time, and masks are made one by one, to bound the memory.

    Args:
        opened: The weights or the artifact.
        device: The device on which PyTorch computes.
        precision: The precision in which PyTorch computes.
        max_pixels: The largest number of pixels of a mask's image.
    """

    kind: Literal["detection"] = "detection"
    noun = "detector"
    path = "detect"

    def __init__(
        self, opened: Weights | Artifact, *, device: str, precision: str, max_pixels: int
    ) -> None:
        finder = open_finder(opened, device=device, precision=precision)
        if finder.has_masks:
            rle.check_codec()
        self.finder, self._max_pixels = finder, max_pixels
        self.class_names = finder.class_names
        self.transform = WholeImages(finder.transform.preprocessing, finder.transform.resized)
        self.notes = list(opened.lines())
        self.sha256, self.engine, self.certificate = facts_of(opened, "PyTorch")

    def __call__(
        self, prepared: Prepared, wanted: WantedObjects, title: str, budget: AnswerBudget
    ) -> bytes:
        """Answer for one image.

        Args:
            prepared: The image.
            wanted: The parts of the answer that the client wants.
            title: The name of the image.
            budget: The size that the rest of the answer may have.

        Returns:
            JSON as `schemas.DetectedImage` describes it.

        Raises:
            Refusal: The answer is too large.
        """
        size = reduced_size(prepared.size, self._max_pixels)
        with_masks = wanted.masks != "none" or wanted.overlay
        found = self.finder(prepared.pixels, size, threshold=wanted.threshold, masks=with_masks)
        scale = np.array([prepared.size[1] / size[1], prepared.size[0] / size[0]] * 2)
        answer: dict[str, Any] = {
            "image": title,
            "height": prepared.size[0],
            "width": prepared.size[1],
            "objects": [
                {
                    "class": self.class_names[int(label)],
                    "score": float(score),
                    "box": [round(value, 2) for value in (box * scale).tolist()],
                    **self._mask(found, i, wanted.masks, scale),
                }
                for i, (box, score, label) in enumerate(
                    zip(found.boxes, found.scores, found.labels, strict=True)
                )
            ],
            "classes": self._counted(found),
        }
        if wanted.overlay:
            answer["overlay"] = png_text(self._drawn(prepared.pixels, found, size))
        budget.objects += len(found.scores)
        return budget.write(answer)

    def warm_up(self) -> None:
        """Answer for a grey image."""
        how = self.transform.preprocessing
        grey = torch.full((how.channels, *how.image_size), 128, dtype=torch.uint8)
        self.finder(self.transform(grey), how.image_size)

    def _counted(self, found: FoundObjects) -> list[dict[str, Any]]:
        """Count the objects of each class, the most frequent class first."""
        counts = np.bincount(found.labels, minlength=len(self.class_names))
        return [
            {
                "class": self.class_names[k],
                "index": k,
                "count": int(counts[k]),
                "colour": css_colour(colour_of(k)),
            }
            for k in np.argsort(-counts, kind="stable").tolist()
            if counts[k]
        ]

    def _mask(
        self, found: FoundObjects, i: int, form: str, scale: np.ndarray[Any, Any]
    ) -> dict[str, Any]:
        """Return the mask of an object in the form that is asked for."""
        if form == "none" or found.masks is None:
            return {}
        if form == "rle":
            return {"mask": rle.to_json(found.masks[i])}
        mask = found.masks[i]
        left, top, right, bottom = (int(side) for side in rle.box_of(mask))
        inside = rle.decode(mask)[top:bottom, left:right] > 0  # tracing the whole mask takes long
        return {
            "polygons": [
                ((points + (left, top)) * scale[:2]).round(2).ravel().tolist()
                for points in outlines(inside)
            ]
        }

    def _drawn(self, pixels: Tensor, found: FoundObjects, size: tuple[int, int]) -> Any:
        """Draw the objects over the image that the network sees."""
        seen = int(pixels.shape[-2]), int(pixels.shape[-1])
        picture = to_picture(pixels)
        if picture.size != seen[::-1]:  # small images are enlarged
            picture = picture.resize(seen[::-1])
        scale = np.array([seen[1] / size[1], seen[0] / size[0]] * 2)
        rows, columns = (
            (2 * np.arange(side) + 1) * old // (2 * side)
            for side, old in zip(seen, size, strict=True)
        )
        drawn = [
            DrawnObject(
                found.boxes[i] * scale,
                tag_of(self.class_names, int(label), found.scores[i]),
                colour_of(int(label)),
                None
                if found.masks is None
                else rle.encode(rle.decode(found.masks[i])[rows][:, columns]),
            )
            for i, label in enumerate(found.labels)
        ]
        return draw_objects(picture, drawn)
