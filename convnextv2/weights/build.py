"""Build the network that a description describes, and check whether tensors fill it."""

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

    Raises:
        CheckpointError: It belongs to a task that this version does not know, or cannot be built.
    """
    if description.kind not in _KINDS:
        raise CheckpointError(
            f"kind = {description.kind}: weights of a task that this version does not know, expected "
            f"one of {', '.join(_KINDS)}. Use the program that wrote them."
        )
    try:
        network = ConvNeXtV2(**description.arguments, drop_path_rate=drop_path_rate)
        return FCMAE(network, **description.fcmae) if description.kind == "fcmae" else network
    except (TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"the model description cannot be understood ({brief([str(error).strip().split(chr(10))[0]])}). Was it written by a "
            "newer version?"
        ) from error


def check_complete(tensors: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Every tensor of the described model is there in its shape. CheckpointError names what is not."""
    arguments = description.arguments
    try:  # nothing is built that the tensors do not fill
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
            f"{path}: its tensors describe no ConvNeXt V2 (depths {arguments['depths']}, channels {arguments['dims']} for images "
            f"of {arguments['in_channels']}, stem stride {arguments['stem_stride']})."
        )
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
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, expected {wanted} of floats."
            )
