"""Builds the network of a description, and checks that tensors fill it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError, ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.upernet import Segmentor
from convnextv2.text import brief
from convnextv2.weights.description import DENSE_KINDS, Description
from convnextv2.weights.dtypes import is_readable

Network = ConvNeXtV2 | FCMAE | Segmentor | Detector
"""The networks that a weights file may hold."""

_KINDS = ("classifier", "multi_label", "encoder", "fcmae", "segmentation", "detection")


def build_model(description: Description, *, drop_path_rate: float = 0.0) -> Network:
    """Build the model that a description describes, with random weights.

    Args:
        description: The network.
        drop_path_rate: The rate of stochastic depth in its last block.

    Returns:
        An `FCMAE` for the kind "fcmae", a `Segmentor` for "segmentation", a `Detector` for
        "detection", else a `ConvNeXtV2`.

    Raises:
        CheckpointError: No model can be built from the description.
    """
    try:
        return _build(description, drop_path_rate)
    except ConvNeXtV2Error as error:  # its message says what is wrong
        raise CheckpointError(
            f"the model description asks for a network that cannot be built: {error}"
        ) from error
    except (TypeError, ValueError, RuntimeError, OverflowError, AssertionError) as error:
        why = brief([str(error).strip().split("\n")[0]])
        raise CheckpointError(
            f"the model description cannot be understood ({why}). Was it written by a newer "
            "version?"
        ) from error


def _build(description: Description, drop_path_rate: float) -> Network:
    arguments, classes = dict(description.arguments), description.arguments.get("num_classes")
    if description.kind in DENSE_KINDS:
        arguments["num_classes"] = None
    network = ConvNeXtV2(**arguments, drop_path_rate=drop_path_rate)
    if description.kind == "segmentation":
        return Segmentor(network, int(classes or 0), **description.head)
    if description.kind == "detection":
        return Detector(network, int(classes or 0), **description.head)
    return FCMAE(network, **description.fcmae) if description.kind == "fcmae" else network


def count_parameters(description: Description) -> int:
    """Count the parameters of the model that a description describes, without building them.

    Raises:
        CheckpointError: No model can be built from the description.
    """
    with torch.device("meta"):
        model = build_model(description)
    return sum(parameter.numel() for parameter in model.parameters())


def check_complete(tensors: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Check that tensors fill the described network completely and exactly.

    Args:
        tensors: The tensors by canonical name.
        description: The network.
        path: The file, for error messages.

    Raises:
        CheckpointError: The weights belong to a task that this version does not know; a tensor is
            missing, unexpected, of another shape, or not of floats; or the description cannot
            belong to these tensors.
    """
    if description.kind not in _KINDS:
        raise CheckpointError(
            f"{path}: kind = {description.kind}: weights of a task that this version does not "
            f"know; expected one of {', '.join(_KINDS)}. Use the program that wrote them."
        )
    _check_plausible(tensors, description, path)
    try:
        with torch.device("meta"):
            expected = build_model(description).state_dict()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check_fit(tensors, expected, path)


def check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Check that tensors can take the place of those of a model.

    Args:
        tensors: The tensors by canonical name.
        expected: The model's tensors, on any device.
        path: The file, for error messages.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape, or not of floats.
    """
    if missing := [name for name in expected if name not in tensors]:
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing: {brief(missing)}.")
    if unexpected := [name for name in tensors if name not in expected]:
        raise CheckpointError(
            f"{path}: {len(unexpected)} tensors have no place in the model: {brief(unexpected)}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or not is_readable(tensor.dtype):
            wanted = tuple(expected[name].shape)
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, expected {wanted} of "
                "floating-point numbers of 8 to 64 bits."
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
        if description.kind == "segmentation":
            numbers += [description.head["channels"], arguments["num_classes"]]
        if description.kind == "detection":
            numbers += [description.head["fpn_channels"], description.head["box_dim"]]
            numbers.append(arguments["num_classes"])
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
            f"dims {arguments['dims']}, in_channels {arguments['in_channels']}, stem_stride "
            f"{arguments['stem_stride']})."
        )
