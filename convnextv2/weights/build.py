"""Builds the network that a description describes, and checks whether tensors fill it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.text import brief
from convnextv2.weights.description import Description

_KINDS = ("classifier", "encoder", "fcmae")


def build_model(description: Description, *, drop_path_rate: float = 0.0) -> ConvNeXtV2 | FCMAE:
    """Build the model that a description describes, with random weights.

    Args:
        description: The network.
        drop_path_rate: The rate of stochastic depth in its last block.

    Returns:
        An `FCMAE` for the kind "fcmae", else a `ConvNeXtV2`.

    Raises:
        CheckpointError: The description belongs to a task that this version does not know, or no
            model can be built from it.
    """
    if description.kind not in _KINDS:
        raise CheckpointError(
            f"kind = {description.kind}: weights of a task that this version does not know, "
            f"expected one of {', '.join(_KINDS)}. Use the program that wrote them."
        )
    try:
        network = ConvNeXtV2(**description.arguments, drop_path_rate=drop_path_rate)
        return FCMAE(network, **description.fcmae) if description.kind == "fcmae" else network
    except (TypeError, RuntimeError, OverflowError) as error:
        why = brief([str(error).strip().split("\n")[0]])
        raise CheckpointError(
            f"the model description cannot be understood ({why}). Was it written by a newer "
            "version?"
        ) from error


def check_complete(tensors: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Check that tensors fill the described network completely and exactly.

    Args:
        tensors: The tensors by canonical name.
        description: The network.
        path: The file, for error messages.

    Raises:
        CheckpointError: A tensor is missing, superfluous, of another shape, or not of floats; or
            the description cannot belong to these tensors.
    """
    _check_plausible(tensors, description, path)
    with torch.device("meta"):
        expected = build_model(description).state_dict()
    if missing := [name for name in expected if name not in tensors]:
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing: {brief(missing)}.")
    if unexpected := [name for name in tensors if name not in expected]:
        raise CheckpointError(
            f"{path}: {len(unexpected)} tensors have no place in the model: {brief(unexpected)}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            wanted = tuple(expected[name].shape)
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, expected {wanted} of "
                "floats."
            )


def _check_plausible(tensors: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Raise CheckpointError if a description asks for more blocks than the tensors can fill.

    Without this check, a damaged description could ask for a network that fills the memory.
    """
    arguments = description.arguments
    try:
        numbers = [*arguments["dims"], *arguments["depths"], arguments["in_channels"]]
        blocks = sum(arguments["depths"])
        if description.kind == "fcmae":
            numbers += [description.fcmae["decoder_dim"], description.fcmae["decoder_depth"]]
            blocks += description.fcmae["decoder_depth"]
        plausible = (
            min(numbers) >= 1 and blocks <= len(tensors) and arguments["stem_stride"] in (1, 2, 4)
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its model description cannot be understood ({error!r})."
        ) from error
    if not plausible:
        raise CheckpointError(
            f"{path}: its tensors do not describe a ConvNeXt V2 (depths {arguments['depths']}, "
            f"channels {arguments['dims']} for images of {arguments['in_channels']}, stem stride "
            f"{arguments['stem_stride']})."
        )
