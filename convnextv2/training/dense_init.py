"""Start a network for segmentation or detection from weights: the encoder and all that fits.

Such a network has an attribute `encoder`, a `ConvNeXtV2`, and may have `class_tensors`: the names
of tensors with rows for each class, or a mapping from these names to the number of rows before
those of the first class and the number of rows of each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.pyramid import name_in_encoder
from convnextv2.training.init import check_made_for
from convnextv2.weights.adapt import LoadReport, load_encoder
from convnextv2.weights.opened import Weights


def load_dense_init(
    network: nn.Module, weights: Weights, *, classes: Sequence[str]
) -> dict[str, Any]:
    """Load weights into a network around an encoder, and print what was done with each.

    The encoder can come from any weights. Norms and heads can only come from weights of the same
    kind of network. The rows of their classes are matched by name.

    Args:
        network: The network, with random weights.
        weights: The weights to start from.
        classes: The names of the network's classes.

    Returns:
        The provenance of the model that is trained. The licence of the weights applies to it too.

    Raises:
        CheckpointError: The encoder is of another size or incomplete, or holds NaN.
    """
    for line in weights.lines():
        say(line)
    encoder = network.encoder
    assert isinstance(encoder, ConvNeXtV2)
    check_made_for(weights, encoder)
    report = load_encoder(encoder, weights.tensors, source=weights.origin.path)
    report = load_around(network, report, weights.tensors, weights.description.class_names, classes)
    for line in replace(report, left_out=report.left_out + weights.left_out).lines():
        say(line)
    return {"init": weights.provenance(), "notice": weights.origin.notice}


def load_around(
    network: nn.Module,
    encoder: LoadReport,
    tensors: Mapping[str, Tensor],
    their_classes: Sequence[str],
    classes: Sequence[str],
) -> LoadReport:
    """Load the norms and heads of a network for the same task.

    Args:
        network: The network, whose encoder is loaded.
        encoder: The report on how the encoder was loaded.
        tensors: The weights by canonical name.
        their_classes: The names of the weights' classes; empty if they are unknown.
        classes: The names of the network's classes.

    Returns:
        A report on how each tensor of the network was loaded.
    """
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name_in_encoder(name) == name
    }
    named: Any = getattr(network, "class_tensors", ())
    rows_of = dict(named) if isinstance(named, Mapping) else dict.fromkeys(named, (0, 1))
    chosen, adapted = {}, list(encoder.adapted)
    left_out = [(name, why) for name, why in encoder.left_out if name not in own]
    for name in own:
        given = tensors.get(name)
        if given is None:
            continue
        if name in rows_of and list(their_classes) != list(classes):
            first, each = rows_of[name]
            kept = _rows_by_name(own[name], given, their_classes, classes, first=first, each=each)
            if kept is None:
                left_out.append((name, "of other classes"))
            else:
                chosen[name], count = kept
                adapted.append((name, f"rows of {count} of {len(classes)} classes, by name"))
        elif given.shape == own[name].shape:
            chosen[name] = given
        else:
            shape, wanted = tuple(given.shape), tuple(own[name].shape)
            left_out.append((name, f"{shape}, the network wants {wanted}"))
    network.load_state_dict(chosen, strict=False)
    changed = {name for name, _ in adapted}
    loaded = [name for name in chosen if name not in changed]
    fresh = [name for name in own if name not in chosen]
    return LoadReport(encoder.loaded + loaded, adapted, left_out, encoder.fresh + fresh)


def _rows_by_name(
    own: Tensor,
    given: Tensor,
    their_classes: Sequence[str],
    classes: Sequence[str],
    *,
    first: int,
    each: int,
) -> tuple[Tensor, int] | None:
    """Copy the rows of classes that have the same name in both.

    Args:
        own: The network's tensor.
        given: The tensor of the same name in the weights.
        their_classes: The names of the weights' classes.
        classes: The names of the network's classes.
        first: Rows before those of the first class, which belong to the background.
        each: Rows of each class.

    Returns:
        A tensor like `own`, and the number of classes that were copied; None if there are none.
    """
    theirs = {name: row for row, name in enumerate(their_classes)}
    pairs = [(row, theirs[name]) for row, name in enumerate(classes) if name in theirs]
    fits = given.shape[1:] == own.shape[1:] and len(given) == first + each * len(their_classes)
    if not pairs or not fits:
        return None
    rows = own.detach().clone()
    rows[:first] = given[:first].to(rows)
    for row, their_row in pairs:
        ours, start = first + each * row, first + each * their_row
        rows[ours : ours + each] = given[start : start + each].to(rows)
    return rows, len(pairs)
