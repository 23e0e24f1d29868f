"""Opening the model that a user names."""

from __future__ import annotations

from pathlib import Path

from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.errors import RecipeError
from convnextv2.find import find_weights, open_run_weights
from convnextv2.recipe.values import show
from convnextv2.weights.opened import Weights


def open_model(source: str | Path | Weights | Artifact) -> Weights | Artifact:
    """Open an artifact, or else weights.

    Args:
        source: A run folder, checkpoint, weights file or artifact. What is open already is returned
            as it is.

    Raises:
        ConvNeXtV2Error: There is no such model, or it cannot be opened.
    """
    if isinstance(source, Weights | Artifact):
        return source
    if not isinstance(source, str | Path):
        raise RecipeError(
            f"source = {show(source)}: expected the path of a run folder, checkpoint, weights file "
            "or artifact."
        )
    return open_artifact(source) if is_artifact(source) else open_run_weights(find_weights(source))
