"""The page of explanations: maps of single images, a map of all embeddings, and mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from convnextv2.evaluation.charts import percent
from convnextv2.evaluation.drawing import colour_of
from convnextv2.evaluation.page import Section, picture_of, thumbnail
from convnextv2.evaluation.templates import open_template

_MAX_LEGEND = 24


@dataclass(frozen=True)
class ExplainedImage:
    """An image with its maps, ready to show.

    Attributes:
        name: The name of its file.
        question: The class that is explained.
        answer: The prediction of the classifier.
        votes: Class names and probabilities, the most probable first.
        image: The image as the network sees it.
        activation: The class activation map over the image.
        activation_note: A note on the sum of the map.
        occlusion: The occlusion map over the image.
        occlusion_note: A note on the covered parts and the largest change.
    """

    name: str
    question: str
    answer: str
    votes: Sequence[tuple[str, float]]
    image: Image.Image
    activation: Image.Image
    activation_note: str
    occlusion: Image.Image
    occlusion_note: str


@dataclass(frozen=True)
class Near:
    """A training image whose embedding is near that of a mistake.

    Attributes:
        image: The image.
        says: Its class.
        about: Its similarity and its file.
    """

    image: Image.Image
    says: str
    about: str


@dataclass(frozen=True)
class Mistake:
    """An image that the classifier gets wrong.

    Attributes:
        name: The name of its file.
        target: The name of its labelled class.
        answer: The name of the predicted class.
        votes: Class names and probabilities, the most probable first.
        image: The image as the network sees it.
        activation: The class activation map of the wrong class over the image.
        near: The nearest training images.
    """

    name: str
    target: str
    answer: str
    votes: Sequence[tuple[str, float]]
    image: Image.Image
    activation: Image.Image
    near: Sequence[Near]


@dataclass(frozen=True)
class EmbeddingMap:
    """The map of the embeddings.

    Attributes:
        picture: The picture.
        shown: The number of images in it.
        images: The number of images whose embeddings determine the directions.
        shares: The share of the variance along each direction.
        class_names: The classes whose colours are used; empty without labels.
        marks_mistakes: Whether mistakes have a black corner.
    """

    picture: Image.Image
    shown: int
    images: int
    shares: tuple[float, float]
    class_names: Sequence[str] = ()
    marks_mistakes: bool = False


def image_section(explained: Sequence[ExplainedImage]) -> Section:
    """Build the section of single images."""
    shown = [
        {
            **vars(each),
            "image": thumbnail(each.image),
            "activation": thumbnail(each.activation),
            "occlusion": thumbnail(each.occlusion),
        }
        for each in explained
    ]
    return Section("images", "Images", Markup(_macros().images(shown)))


def map_section(found: EmbeddingMap) -> Section:
    """Build the section of the map."""
    across, up = found.shares
    lead = (
        f"{found.shown:,} images, placed by the two directions in which the embeddings of "
        f"{found.images:,} images differ most (principal components): {percent(across)} of the "
        f"variance across, {percent(up)} upwards. Neighbours on the map may differ in all other "
        "directions."
    )
    if found.class_names:
        lead += " The border has the colour of the class."
    if found.marks_mistakes:
        lead += " A black corner marks images that the classifier gets wrong."
    names = found.class_names[:_MAX_LEGEND]
    rest = len(found.class_names) - len(names)
    made = _macros().map(
        picture_of(found.picture),
        lead,
        [(name, colour_of(i)) for i, name in enumerate(names)],
        f"and {rest} more" if rest else "",
    )
    return Section("map", "Map of the embeddings", Markup(made))


def mistake_section(mistakes: Sequence[Mistake], count: int) -> Section:
    """Build the section of mistakes.

    Args:
        mistakes: The mistakes to show.
        count: The number of all mistakes.
    """
    shown = [
        {
            **vars(each),
            "image": thumbnail(each.image),
            "activation": thumbnail(each.activation),
            "near": [{**vars(near), "image": thumbnail(near.image)} for near in each.near],
        }
        for each in mistakes
    ]
    return Section("mistakes", "Confident mistakes", Markup(_macros().mistakes(shown, count)))


def _macros() -> Any:
    template = open_template(__package__, "explanation.html.jinja", percent=percent)
    return template.module
