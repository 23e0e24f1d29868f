"""Puts opened weights into the model that they describe."""

from __future__ import annotations

from pathlib import Path

import torch

from convnextv2.errors import CheckpointError
from convnextv2.text import brief
from convnextv2.weights.build import Network, build_model, check_fit
from convnextv2.weights.description import Description
from convnextv2.weights.dtypes import is_finite
from convnextv2.weights.opened import Weights, open_weights


def load_model(path: Path) -> tuple[Network, Description]:
    """Load the model in a weights file of any known format.

    Args:
        path: A weights file or a folder in the layout of the Hugging Face Hub.

    Returns:
        The model in evaluation mode, on the CPU, and its description.

    Raises:
        CheckpointError: The file cannot be opened, or a tensor is missing or does not fit.
    """
    weights = open_weights(path)
    return restore(weights), weights.description


def check_finite(weights: Weights) -> None:
    """Check that weights can compute anything.

    Raises:
        CheckpointError: A tensor holds NaN or infinite numbers.
    """
    bad = [name for name, tensor in weights.tensors.items() if not is_finite(tensor)]
    if bad:
        raise CheckpointError(
            f"{weights.origin.path}: {len(bad)} tensors hold NaN or infinite numbers: "
            f"{brief(bad)}. Use weights from before the training diverged, or copy the file again."
        )


def restore(weights: Weights) -> Network:
    """Build the model of opened weights.

    Args:
        weights: The weights.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: The tensors do not fit the description, or are not finite.
    """
    check_finite(weights)
    model = _build_without_values(weights.description)
    check_fit(weights.tensors, model.state_dict(), weights.path)
    model.load_state_dict(weights.tensors)
    return model.eval()


def _build_without_values(description: Description) -> Network:
    """Build the model of a description without drawing the initial values of its weights.

    They would be overwritten at once, and drawing them takes four times as long as loading.
    """
    if description.kind == "detection":  # no weights file holds its anchors
        return build_model(description)
    with torch.device("meta"):
        model = build_model(description)
    return model.to_empty(device="cpu")
