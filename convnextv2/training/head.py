"""The classifier of a model that starts from weights: its rows, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convnextv2.evaluation.classes import match_rows, order_of, pairs
from convnextv2.weights.opened import OURS, Weights

HEAD = ("head.weight", "head.bias")


def start_head(
    head: nn.Linear, weights: Weights, classes: Sequence[str], order: str, *, named: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Choose the rows of a new head from the head of other weights.

    The head's shape alone says nothing: a model of three animals fits the data of three fruits.

    Args:
        head: The new head, with random values, which classes without a row keep.
        weights: The weights to start from, with a head.
        classes: Names of the new head's rows.
        order: The recipe's `class_order`.
        named: How many of the rows have classes in the data; those after them wait for one.

    Returns:
        The head's tensors by name, empty where none of them can be used; and lines for people.
    """
    theirs = [weights.tensors[name] for name in HEAD]
    form = order_of(weights.description)
    if form != OURS:  # theirs know nothing of rows that wait for a class
        classes = [name for row, name in enumerate(classes) if row < named]
    match = match_rows(
        classes,
        weights.description.class_names,
        len(theirs[0]),
        format=form,
        order=order,
    )
    if isinstance(match, str):
        return {}, [f"A new head: in the weights' head, {match}. Set class_order to keep its rows."]
    known = [i for i, row in enumerate(match.rows) if row is not None]
    rows = torch.tensor([row for row in match.rows if row is not None])
    tensors = {}
    for name, own, given in zip(HEAD, (head.weight, head.bias), theirs, strict=True):
        tensors[name] = own.detach().clone()
        tensors[name][known] = given[rows].to(own.dtype)
    new = len(classes) - len(known)
    found = f"{len(known)} of {len(classes)}" if new else str(len(classes))
    line = f"Head: rows of {found} classes: {match.how} ({pairs(classes, match)})"
    return tensors, [f"{line}; {new} new." if new else f"{line}."]
