"""Explain a model by all its labelled images: a map of embeddings, mistakes and neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from convnextv2.console import say
from convnextv2.data.loader import build_prediction_loader
from convnextv2.data.notices import none_readable, say_left_out
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.embedding_map import draw_map, principal_components
from convnextv2.evaluation.explanation_page import (
    EmbeddingMap,
    Mistake,
    Near,
    map_section,
    mistake_section,
)
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.heat import heat_picture
from convnextv2.evaluation.page import Section
from convnextv2.inference.embedder import open_embedder
from convnextv2.inference.explanation import Question, activation_map, enlarge
from convnextv2.inference.scorer import open_scorer
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.supervised.own_data import check_held_out
from convnextv2.text import brief, plain
from convnextv2.verbs.options.measuring import ExplainOptions
from convnextv2.verbs.own_images import with_own_images
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

MAX_EMBEDDINGS = 10_000
"""The largest number of training images, and of validation images, that are embedded."""
MAX_THUMBNAILS = 400
VOTES = 3
"""The number of classes whose probabilities are shown."""


class Explained(NamedTuple):
    """The content of a page.

    Attributes:
        sections: The sections.
        answer: The JSON answer, without the page and the weights.
        summary: Headline figures.
    """

    sections: list[Section]
    answer: dict[str, Any]
    summary: dict[str, str]


@dataclass
class _Seen:
    """The outputs of a model for the images that could be read.

    Attributes:
        indices: The indices of these images in the source.
        targets: The class of each, -1 without labels.
        embeddings: (N, D).
        probs: (N, K); (N, 0) without a classifier.
        thumbnails: Small pictures by row, at most about `MAX_THUMBNAILS`.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    probs: NDArray[np.float32]
    thumbnails: dict[int, Image.Image] = field(default_factory=dict)


_Run = Callable[[Tensor], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Maps pixels, uint8 (N, C, H, W), to embeddings (N, D) and probabilities (N, K)."""


@dataclass(frozen=True)
class _Model:
    """A model that embeds and classifies images.

    Attributes:
        run: Maps pixels, uint8 (N, C, H, W), to embeddings (N, D) and probabilities (N, K).
        names: The names of its classes; none for an encoder.
        transform: The preprocessing of its images.
    """

    run: _Run
    names: list[str]
    transform: EvalTransform


def explain_data(opened: Weights, options: ExplainOptions, given: Recipe) -> Explained:
    """Make the map of embeddings and, for a classifier, the section of mistakes.

    Args:
        opened: The weights of a classifier or an encoder.
        options: The options of the verb.
        given: The recipe with the knobs of the verb.

    Raises:
        RecipeError: An option is for single images, or no images are named.
        DataError: There are no such images, or the model does not know their classes.
    """
    if single := options.changed("target", "against", "patch_px", "step_px", "pictures"):
        raise RecipeError(
            f"{single[0]} = {getattr(options, single[0])}: is for single images. Name some, or "
            "leave this option out."
        )
    if opened.description.kind == "multi_label":
        raise RecipeError(
            f"{opened.path}: gives an image any number of labels, for which mistakes have no "
            "nearest class. Name images to explain."
        )
    model = _open(opened, options, given)
    recipe = with_own_images(
        given, opened.path, has_learned=bool(model.names), otherwise=", or single images"
    )
    training, validation = _sources(recipe, opened, labelled=bool(model.names))
    if model.names and validation is not None:
        check_held_out(
            validation, lambda other: find_sources(other, labelled=True)[1], recipe, opened.path
        )
    for line in (*training.notes, *(validation.notes if validation else ())):
        say(line)
    shown = (validation or training).spread(MAX_EMBEDDINGS)
    seen = _see(model, shown, recipe, "image")
    data_names = list(shown.class_names) if shown.targets is not None else []
    names = model.names or data_names
    rows = _rows_of(data_names, names, opened)
    targets = np.array([rows[t] if t >= 0 else -1 for t in seen.targets.tolist()], np.int64)
    wrong = np.zeros(len(targets), bool)
    if model.names:
        wrong = (seen.probs.argmax(1) != targets) & (targets >= 0)
    sections = [map_section(_map(seen, targets, wrong, names))]
    summary = {"images": f"{len(targets):,}"}
    answers: list[dict[str, Any]] = []
    if model.names and validation is not None:
        known = training.spread(MAX_EMBEDDINGS)
        neighbours = _Known(known, rows, _see(model, known, recipe, "training image"))
        mistakes, answers = _mistakes(opened, options, model, shown, seen, targets, neighbours)
        count, right = int(wrong.sum()), 1 - float(wrong.mean())
        sections.append(mistake_section(mistakes, count))
        summary |= {"accuracy": f"{right:.1%}", "mistakes": f"{count:,}"}
        say(f"{count:,} of {len(wrong):,} images are wrong ({right:.2%} right).")
    elif model.names:
        say("There are no validation images, so mistakes are not shown.")
    return Explained(sections, {"images": [], "mistakes": answers}, summary)


def _map(
    seen: _Seen, targets: NDArray[np.int64], wrong: NDArray[np.bool_], names: Sequence[str]
) -> EmbeddingMap:
    """Draw the map of the embeddings."""
    components = principal_components(seen.embeddings)
    drawn = sorted(seen.thumbnails)
    picture = draw_map(
        components.points[drawn],
        [seen.thumbnails[row] for row in drawn],
        targets[drawn].tolist(),
        wrong[drawn].tolist(),
    )
    marks = bool(wrong[drawn].any())
    return EmbeddingMap(picture, len(drawn), len(targets), components.shares, names, marks)


def _open(opened: Weights, options: ExplainOptions, given: Recipe) -> _Model:
    """Open the model that embeds and classifies."""
    if opened.description.kind == "classifier":
        scorer = open_scorer(opened, device=given.device, precision=given.precision)

        def classify(pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            scores = scorer(pixels)
            return scores.embedding, scores.probs

        return _Model(classify, list(scorer.class_names), scorer.transform)
    embedder = open_embedder(options.run, device=given.device, precision=given.precision)

    def embed(pixels: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return embedder.run(pixels), np.zeros((len(pixels), 0), np.float32)

    return _Model(embed, [], embedder.transform)


def _sources(recipe: Recipe, opened: Weights, *, labelled: bool) -> tuple[Source, Source | None]:
    """Find the images; those of a pre-training run need no labels."""
    try:
        training, validation = find_sources(recipe, labelled=True)
    except DataError:
        if labelled:
            raise
        return find_sources(recipe, labelled=False)
    if training.is_multi_label:
        raise DataError(
            f"{recipe.data_dir}: images have several labels each, and {opened.path} knows one. Set "
            "labels to single, or name other images."
        )
    return training, validation


def _rows_of(data_names: Sequence[str], names: Sequence[str], opened: Weights) -> list[int]:
    """Find the row of the model for each class of the data.

    Raises:
        DataError: The model does not know a class.
    """
    if list(data_names) == list(names):
        return list(range(len(names)))
    if not opened.description.class_names and len(data_names) == len(names):
        say("The weights name no classes, so those of the data are used in their order.")
        return list(range(len(names)))
    place = {name: row for row, name in enumerate(names)}
    if unknown := [name for name in data_names if name not in place]:
        raise DataError(
            f"class {unknown[0]!r}: {len(unknown)} of {len(data_names)} classes of the data are "
            f"not among the model's ({brief(list(names))}). Name the data that it was trained on."
        )
    return [place[name] for name in data_names]


def _see(model: _Model, source: Source, recipe: Recipe, what: str) -> _Seen:
    """Embed and classify the images that can be read.

    Raises:
        DataError: None can be read.
    """
    loader = build_prediction_loader(recipe, source, model.transform)
    chosen = set(np.linspace(0, len(source) - 1, MAX_THUMBNAILS).round().astype(int).tolist())
    parts: list[tuple[NDArray[Any], ...]] = []
    thumbnails: dict[int, Image.Image] = {}
    row = 0
    for batch in loader:
        indices = batch.indices.tolist()
        found = model.run(batch.pixels)
        parts.append((np.array(indices), batch.targets.numpy().copy(), *found))
        for i, index in enumerate(indices):
            if index in chosen:
                thumbnails[row + i] = _small(batch.pixels[i])
        row += len(indices)
    say_left_out(loader.skipped, what)
    if not parts:
        raise none_readable(source.names, what)
    joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return _Seen(joined[0], joined[1], joined[2], joined[3], thumbnails)


def _small(pixels: Tensor) -> Image.Image:
    """Make a small picture of an image, uint8 (C, H, W), to be drawn on the map."""
    picture = to_picture(pixels)
    picture.thumbnail((80, 80))
    return picture


@dataclass(frozen=True)
class _Known:
    """The training images, among which the nearest ones are searched.

    Attributes:
        source: The images.
        rows: The row of the model for each of their classes.
        seen: The outputs of the model for them.
    """

    source: Source
    rows: Sequence[int]
    seen: _Seen


def _mistakes(
    opened: Weights,
    options: ExplainOptions,
    model: _Model,
    source: Source,
    seen: _Seen,
    targets: NDArray[np.int64],
    known: _Known,
) -> tuple[list[Mistake], list[dict[str, Any]]]:
    """Choose the most confident mistakes, and find the training images nearest to each.

    Returns:
        The mistakes, and their entries in the JSON answer.
    """
    network = restore(opened)
    assert isinstance(network, ConvNeXtV2)
    how, names = model.transform.preprocessing, model.names
    normalise = normaliser(how)
    shown: list[Mistake] = []
    answers: list[dict[str, Any]] = []
    for row in confident_mistakes(seen.probs, targets)[: options.mistakes].tolist():
        pixels = _prepared(model.transform, source, int(seen.indices[row]))
        if pixels is None:
            continue
        name, probs = source.names[int(seen.indices[row])], seen.probs[row]
        said, target = int(probs.argmax()), int(targets[row])
        activation = activation_map(network, normalise(pixels[None])[0], Question(said))
        heat = enlarge(activation.map, (pixels.shape[1], pixels.shape[2]))
        near, near_answers = _near(model, known, seen.embeddings[row], options.neighbours)
        best = np.argsort(-probs, kind="stable")[:VOTES].tolist()
        shown.append(
            Mistake(
                plain(Path(name).name),
                names[target],
                f"{names[said]} {float(probs[said]):.1%}",
                [(names[r], float(probs[r])) for r in best],
                to_picture(pixels),
                heat_picture(pixels, heat),
                near,
            )
        )
        answers.append(
            {
                "image": name,
                "target": names[target],
                "answer": names[said],
                "prob": float(probs[said]),
                "nearest": near_answers,
            }
        )
    return shown, answers


def _near(
    model: _Model, known: _Known, embedding: NDArray[np.float32], count: int
) -> tuple[list[Near], list[dict[str, Any]]]:
    """Find the training images nearest to an embedding, as pictures and for JSON."""
    shown, answers = [], []
    order, similarity = nearest(known.seen.embeddings, embedding, count)
    for i, cosine in zip(order.tolist(), similarity.tolist(), strict=True):
        index, label = int(known.seen.indices[i]), int(known.seen.targets[i])
        file = known.source.names[index]
        called = model.names[known.rows[label]] if label >= 0 else "no label"
        answers.append({"image": file, "class": called, "similarity": cosine})
        pixels = _prepared(model.transform, known.source, index)
        if pixels is not None:
            about = f"near: {cosine:.3f}, {plain(Path(file).name)}"
            shown.append(Near(to_picture(pixels), called, about))
    return shown, answers


def _prepared(transform: EvalTransform, source: Source, index: int) -> Tensor | None:
    """Read an image once more, uint8 (C, H, W); None if that is no longer possible."""
    how = transform.preprocessing
    try:
        return transform(source.pixels(index, how.channels, how.value_range))
    except DataError as error:  # damaged or deleted since the first read
        say(f"An example is left out of the page: {error}")
        return None


def confident_mistakes(probs: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows whose most probable class is wrong, the most confident first.

    Args:
        probs: (N, K).
        targets: int64 (N,), the right classes; rows with -1 are left out.
    """
    wrong = np.flatnonzero((probs.argmax(1) != targets) & (targets >= 0))
    return wrong[np.argsort(-probs[wrong].max(1), kind="stable")]


def nearest(
    embeddings: NDArray[np.float32], query: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the embeddings with the largest cosine similarity.

    Args:
        embeddings: (N, D).
        query: (D,).
        count: How many to find; all if there are fewer.

    Returns:
        Their rows and similarities, the nearest first.
    """
    unit = F.normalize(torch.from_numpy(embeddings))
    similarity = unit @ F.normalize(torch.from_numpy(query)[None])[0]
    found = similarity.topk(min(count, len(similarity)))
    return found.indices.numpy(), found.values.numpy()
