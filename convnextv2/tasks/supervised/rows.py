"""Match the rows of a classifier's head with the classes of the data, for evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from convnextv2.console import say
from convnextv2.data.named_sets import default_class_names
from convnextv2.data.source import Source, Targets
from convnextv2.data.sources import validation_source
from convnextv2.errors import CheckpointError
from convnextv2.evaluation.classes import ORDERS, match_rows, order_of, pairs
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.tasks.supervised.own_data import check_held_out, was_trained_on
from convnextv2.text import brief
from convnextv2.weights.description import Description
from convnextv2.weights.opened import OURS


def labelled_images(
    weights: Path, description: Description, recipe: Recipe
) -> tuple[Source, Description]:
    """Find the recipe's validation images for a classifier.

    Args:
        weights: The path of the weights.
        description: The description of the classifier.
        recipe: The recipe, which names the images.

    Returns:
        The images, whose targets are rows of the classifier, and the description with a name for
        every row.

    Raises:
        CheckpointError: The classifier has fewer classes than the data, or it is unknown which row
            stands for which class.
    """
    rows = description.arguments["num_classes"]
    recipe = _labels_of(weights, description, recipe)
    trained_on = was_trained_on(weights, recipe)
    # Foreign weights may not name their classes, or may not name them as the folders are named.
    # A run of ours names them: its `class_order` was about the weights that it started from.
    foreign = order_of(description) != OURS
    names = [] if foreign else description.class_names
    source = validation_source(recipe, names, trained_on=trained_on)
    check_held_out(
        source,
        lambda other: validation_source(other, names, trained_on=trained_on),
        recipe,
        weights,
    )
    if len(source.class_names) > rows:
        raise CheckpointError(
            f"{weights}: a classifier of {rows} classes, the data have {len(source.class_names)}. "
            "Fine-tune it first: convnextv2 train --init."
        )
    if foreign:
        source = with_rows(source, description, rows, weights, recipe.class_order)
        description = replace(description, class_names=list(source.class_names))
    return source, description


def _labels_of(weights: Path, description: Description, recipe: Recipe) -> Recipe:
    """Set the knob `labels` to what the model predicts: one class, or any number of labels.

    Raises:
        CheckpointError: The user asked for something else.
    """
    kind = "multi" if description.kind == "multi_label" else "single"
    if recipe.labels not in ("auto", kind):
        gives = "any number of labels" if kind == "multi" else "one class"
        raise CheckpointError(
            f"labels = {recipe.labels}: {weights} gives an image {gives}. Leave labels out."
        )
    return with_inferred(recipe, {"labels": kind})


def with_rows(
    source: Source, description: Description, rows: int, weights: Path, order: str
) -> Source:
    """Replace the targets of a source by rows of a head, and print the rule that found them.

    Args:
        source: The images, with targets from 0 in the order of their classes.
        description: The description of the classifier.
        rows: The number of rows in the head.
        weights: The path of the weights, for messages.
        order: The recipe's `class_order`.

    Returns:
        The source with rows as targets, and with a class name for each row.

    Raises:
        CheckpointError: It is unknown which row stands for which class.
    """
    classes, names = source.class_names, description.class_names
    match = match_rows(classes, names, rows, format=order_of(description), order=order)
    if isinstance(match, str):
        theirs = f" ({brief(list(names))})" if names else ""
        raise CheckpointError(
            f"{weights}: {match}{theirs}; the data's classes are {brief(list(classes))}. Which row "
            "is which class? Set class_order to text, natural or number, or to a file with one "
            "class name in each line, row by row."
        )
    for name, row in zip(classes, match.rows, strict=True):
        if row is None and names.count(name) > 1:
            raise CheckpointError(
                f"{weights}: {names.count(name)} of its classes are called {name!r}. Which is "
                "meant?"
            )
        if row is None:
            listed = f" ({brief(list(names))})" if names else ""
            where = order if order not in ORDERS else f"its {rows}{listed}"
            raise CheckpointError(
                f"{weights}: class {name!r} of the data is not among {where}. Name the folders as "
                "the rows are named, or set class_order."
            )
    part = f"{len(classes)} of {rows}" if len(classes) < rows else str(rows)
    say(f"Rows of {part} classes: {match.how} ({pairs(classes, match)}).")
    found = np.array(match.rows, dtype=np.int64)
    called = list(names) if len(names) == rows else default_class_names(rows)
    for row, name in zip(found.tolist(), classes, strict=True):
        called[row] = name
    assert source.targets is not None
    targets: Targets
    if source.is_multi_label:
        targets = np.full((len(source), rows), -1, np.int8)  # other rows: nothing is known
        targets[:, found] = source.targets
    else:
        targets = found[source.targets]
    return replace(source, targets=targets, class_names=tuple(called))
