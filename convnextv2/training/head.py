"""Choose the rows of the head of a classifier that starts from weights."""

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

    A head of the right shape may still be a head of other classes: a model of three animals fits
    data of three fruits. Rows are therefore matched by the names of their classes.

    Args:
        head: The new head, with random values. Classes without a matching row keep them.
        weights: The weights to start from, with a head.
        classes: The names of the rows of the new head.
        order: The recipe's `class_order`.
        named: The number of rows that have a class in the data. The rows after them are spare.

    Returns:
        The tensors of the head by name, and lines for the user. There are no tensors if none of the
        rows can be used.
    """
    theirs = [weights.tensors[name] for name in HEAD]
    form = order_of(weights.description)
    if form != OURS:  # other formats have no spare rows
        classes = [name for row, name in enumerate(classes) if row < named]
    match = match_rows(
        classes,
        weights.description.class_names,
        len(theirs[0]),
        format=form,
        order=order,
    )
    if isinstance(match, str):
        return {}, [
            f"The weights' head is replaced by a new one, because {match}. "
            "Set class_order to keep its rows."
        ]
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
