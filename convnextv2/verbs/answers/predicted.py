"""The answers of predict and embed."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import Licence, Sha256, WrittenPath, means

Prediction = TypedDict(
    "Prediction",
    {
        "class": Annotated[str, means("The name of the class.")],
        "prob": Annotated[float, means("The probability, from 0 to 1.")],
    },
)


class Predicted(TypedDict):
    """The prediction of one image. The last three keys are present if a coverage was fitted."""

    image: Annotated[str, means("The path of the image.")]
    predictions: Annotated[list[Prediction], means("The best class first.")]
    possible: NotRequired[
        Annotated[list[str], means("The classes that cannot be excluded, the best first.")]
    ]
    foreign: NotRequired[Annotated[bool, means("Whether it is unlike the validation images.")]]
    foreignness: NotRequired[
        Annotated[float, means("How unlike it is; above 1 for a foreign image.")]
    ]


class Label(TypedDict):
    """A label that an image has."""

    name: Annotated[str, means("The name of the class.")]
    score: Annotated[float, means("The probability, from 0 to 1.")]
    threshold: Annotated[float, means("The lowest probability at which the image gets the label.")]


class PredictedLabels(TypedDict):
    """The labels of one image, of a model that gives an image any number of them."""

    image: Annotated[str, means("The path of the image.")]
    labels: Annotated[list[Label], means("The most probable label first; there may be none.")]
    scores: Annotated[dict[str, float], means("The probability of every class by its name.")]


Share = TypedDict(
    "Share",
    {
        "class": Annotated[str, means("The name of the class.")],
        "share": Annotated[float, means("The share of the pixels, from 0 to 1.")],
    },
)


class PredictedMap(TypedDict):
    """The classes of the pixels of one image."""

    image: Annotated[str, means("The path of the image.")]
    height: Annotated[int, means("The height of the image, in pixels.")]
    width: Annotated[int, means("The width of the image, in pixels.")]
    classes: Annotated[list[Share], means("The classes that occur, the largest share first.")]
    overlay: NotRequired[Annotated[str, means("The path of a coloured overlay, with `--out`.")]]
    index: NotRequired[Annotated[str, means("The picture of class indices, with `--out`.")]]


class FoundMask(TypedDict):
    """A mask in COCO's run-length encoding."""

    size: Annotated[list[int], means("Height and width of the image, in pixels.")]
    counts: Annotated[str, means("The encoding in its compressed form.")]


FoundObject = TypedDict(
    "FoundObject",
    {
        "class": Annotated[str, means("The name of the class.")],
        "score": Annotated[float, means("How sure the detector is, from 0 to 1.")],
        "box": Annotated[list[float], means("x0, y0, x1 and y1, in pixels.")],
        "mask": NotRequired[
            Annotated[FoundMask, means("The pixels of the object, if the detector finds masks.")]
        ],
    },
)


class PredictedObjects(TypedDict):
    """The objects in one image."""

    image: Annotated[str, means("The path of the image.")]
    width: Annotated[int, means("In pixels, after the rotation that EXIF asks for.")]
    height: Annotated[int, means("The same.")]
    objects: Annotated[list[FoundObject], means("The best object first; there may be none.")]


class FailedImage(TypedDict):
    """An image that could not be read."""

    path: Annotated[str, means("The path of the image.")]
    error: Annotated[str, means("What is wrong with it.")]


class Embedded(TypedDict):
    """Embeddings that were written."""

    path: WrittenPath
    rows: Annotated[int, means("The number of images.")]
    dimensions: Annotated[int, means("The length of an embedding.")]
    normalize: Annotated[str, means("none or l2.")]
    files: Annotated[list[str], means("All files that were written.")]
    failed: Annotated[list[FailedImage], means("The images without a row.")]
    sha256: Sha256
    licence: Licence
