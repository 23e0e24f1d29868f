"""The answers of compare, probe and explain."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import WrittenPath, means


class PairedFigures(TypedDict):
    """A model compared with the first one, image by image."""

    images: Annotated[int, means("The number of images that both could read.")]
    gained: Annotated[int, means("The number of images that only this model gets right.")]
    lost: Annotated[int, means("The number of images that only the first model gets right.")]
    difference: Annotated[float, means("The accuracy minus that of the first model, from -1 to 1.")]
    interval: Annotated[list[float], means("The 95 % interval of the difference.")]
    p_value: Annotated[float, means("The p-value of McNemar's exact test, two-sided.")]


class ComparedModel(TypedDict):
    """One of the models that are compared."""

    path: Annotated[str, means("The path that was given.")]
    top1: Annotated[float | None, means("null for pre-training.")]
    balanced_accuracy: Annotated[float | None, means("null for pre-training.")]
    paired: Annotated[PairedFigures | None, means("null for the first model and pre-training.")]


class Comparison(TypedDict):
    """Models that were measured on the same images."""

    page: WrittenPath
    models: Annotated[list[ComparedModel], means("In the order in which they were given.")]


class Probed(TypedDict):
    """The accuracy of probes of frozen features."""

    weights: Annotated[str, means("The path of the weights or the artifact.")]
    knn: Annotated[float, means("The accuracy of the nearest neighbours, from 0 to 1.")]
    linear: Annotated[float, means("The accuracy of the linear probe, from 0 to 1.")]
    l2: Annotated[float, means("The regularisation of the linear probe.")]
    commonest: Annotated[float, means("The share of the most frequent class.")]
    training_images: Annotated[int, means("The number of training images.")]
    validation_images: Annotated[int, means("The number of validation images.")]


class ExplainedImage(TypedDict):
    """The explanation of the answer for one image."""

    image: Annotated[str, means("The path of the image.")]
    target: Annotated[str, means("The class that is explained.")]
    prob: Annotated[float, means("Its probability, from 0 to 1.")]
    logit: Annotated[float, means("Its logit, or its logit minus that of `against`.")]
    offset: Annotated[float, means("The part of it that does not depend on the image.")]
    activation: Annotated[
        list[list[float]], means("The class activation map, by rows. Its mean + offset = logit.")
    ]
    occlusion_strongest: Annotated[
        float, means("The largest change of the log odds, averaged over the squares on a pixel.")
    ]


NearImage = TypedDict(
    "NearImage",
    {
        "image": Annotated[str, means("The path of the training image.")],
        "class": Annotated[str, means("Its class.")],
        "similarity": Annotated[float, means("The cosine similarity of the embeddings.")],
    },
)


class ExplainedMistake(TypedDict):
    """An image that the classifier gets wrong."""

    image: Annotated[str, means("The path of the image.")]
    target: Annotated[str, means("The class of its label.")]
    answer: Annotated[str, means("The class that the classifier predicts.")]
    prob: Annotated[float, means("The probability of the answer, from 0 to 1.")]
    nearest: Annotated[list[NearImage], means("The nearest training images, the nearest first.")]


class ExplainedAnswers(TypedDict):
    """The explanations on a page."""

    page: WrittenPath
    weights: Annotated[str, means("The path of the weights.")]
    images: Annotated[list[ExplainedImage], means("The images that were given.")]
    mistakes: Annotated[list[ExplainedMistake], means("The most confident mistakes first.")]
