"""Opening the model that a user names."""

from __future__ import annotations

from pathlib import Path

from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.find import find_weights, open_run_weights
from convnextv2.weights.opened import Weights


def open_model(source: str | Path) -> Weights | Artifact:
    """Open an artifact, or else weights.

    Args:
        source: A run folder, checkpoint, weights file or artifact.

    Raises:
        ConvNeXtV2Error: There is no such model, or it cannot be opened.
    """
    return open_artifact(source) if is_artifact(source) else open_run_weights(find_weights(source))
