"""Compare classifiers on the same images, one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convnextv2.console import say
from convnextv2.errors import DataError
from convnextv2.evaluation.comparison import Changed
from convnextv2.evaluation.gallery import to_picture
from convnextv2.evaluation.paired import Paired, compare_hits
from convnextv2.tasks.classification.measure import MeasuredClassifier
from convnextv2.text import counted

_EXAMPLES = 12
"""Number of images that are shown."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """The predictions of several models for the images that all of them could read.

    Attributes:
        indices: int64 (N,), the images in the source of the first model.
        targets: The name of the class of each image.
        answers: For each model, the name of the most probable class of each image.
        probs: For each model, float32 (N,), the probability of that class.
        hits: bool (models, N), whether it is the right one.
    """

    indices: NDArray[np.int64]
    targets: Sequence[str]
    answers: Sequence[Sequence[str]]
    probs: Sequence[NDArray[np.float32]]
    hits: NDArray[np.bool_]

    def paired(self, model: int) -> Paired:
        """Compare a model with the first one."""
        return compare_hits(self.hits[model], self.hits[0])


def align(measured: Sequence[MeasuredClassifier]) -> Aligned:
    """Bring the predictions of several models into one order, by the names of images and classes.

    Args:
        measured: The evaluations of the models on the same images.

    Raises:
        DataError: There is no image that all models can read.
    """
    first = measured[0]
    names = {name: index for index, name in enumerate(first.source.names)}
    tables = []
    for each in measured:
        found = each.predictions
        tables.append(
            {names[each.source.names[index]]: row for row, index in enumerate(found.indices)}
        )
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    if not shared:
        raise DataError("There is no image that all of the models can read.")
    if lost := max(len(table) for table in tables) - len(shared):
        say(f"Left out: {counted(lost, 'image(s)')} that not every model could read.")
    targets = [
        first.description.class_names[first.predictions.targets[tables[0][index]]]
        for index in shared
    ]
    answers, probs = [], []
    for each, table in zip(measured, tables, strict=True):
        rows = [table[index] for index in shared]
        named = each.description.class_names
        answers.append([named[k] for k in each.predictions.classes[rows, 0].tolist()])
        probs.append(each.predictions.probs[rows, 0])
    hits = np.array([[a == t for a, t in zip(row, targets, strict=True)] for row in answers])
    return Aligned(np.array(shared, np.int64), targets, answers, probs, hits)


def changed_images(
    aligned: Aligned, letters: Sequence[str], measured: MeasuredClassifier
) -> list[Changed]:
    """Choose images that some models get right and others wrong, the most certain ones first.

    Args:
        aligned: The predictions.
        letters: What the models are called on the page.
        measured: The evaluation of the first model, whose images are shown.
    """
    mixed = np.flatnonzero(aligned.hits.any(0) & ~aligned.hits.all(0))
    probs = np.array(aligned.probs)
    wrong = np.where(aligned.hits, 0, probs).max(0)
    right = np.where(aligned.hits, probs, 0).max(0)
    order = mixed[np.argsort(-(wrong * right)[mixed], kind="stable")]
    channels: int = measured.description.arguments["in_channels"]
    shown = []
    for i in order[:_EXAMPLES].tolist():
        index = int(aligned.indices[i])
        try:
            pixels = measured.source.pixels(index, channels, measured.value_range)
        except DataError as error:  # damaged or deleted since the evaluation
            say(f"An example is left out of the page: {error}")
            continue
        answers = [
            (letter, aligned.answers[m][i], float(aligned.probs[m][i]), bool(aligned.hits[m, i]))
            for m, letter in enumerate(letters)
        ]
        name = Path(measured.source.names[index]).name
        shown.append(Changed(to_picture(pixels), name, aligned.targets[i], answers))
    return shown
