"""Find the weights that a user means, and the run that weights belong to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from convnextv2.errors import RunError
from convnextv2.run import Run
from convnextv2.weights.description import read_model_json
from convnextv2.weights.hub import download, is_hub_name
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.safetensors import WEIGHTS


def find_weights(path: str | Path) -> Path:
    """Find the weights that a user means.

    Args:
        path: A run folder (best/, else last/), a checkpoint folder, a file, a folder in the Hub's
            layout, or the name of a repository on the Hub, which is fetched.

    Returns:
        A file or a Hub folder.

    Raises:
        RunError: There are no weights.
    """
    name, path = str(path), Path(path)
    if path.is_file():
        return path
    candidates = [path / "best" / WEIGHTS, path / "last" / WEIGHTS, path / WEIGHTS]
    for candidate in candidates:
        if candidate.is_file():
            return (
                path if (path / "config.json").is_file() and candidate.parent == path else candidate
            )
    if (path / "config.json").is_file():  # shards
        return path
    if is_hub_name(name):
        return download(name)
    if not path.exists():
        raise RunError(
            f"{path}: no such file or folder. Expected a run folder, a checkpoint or a weights file."
        )
    raise RunError(
        f"{path}: no weights in it (expected {', '.join(str(c.relative_to(path)) for c in candidates)})."
    )


def run_of(weights: Path) -> Run | None:
    """Return the run that a weights file belongs to, or None for a file on its own.

    MindCV's files lie in the run folder itself.
    """
    for folder in weights.parents[:1] if weights.suffix == ".ckpt" else weights.parents[1:3]:
        if (folder / "recipe.yaml").is_file():
            return Run(folder)
    return None


def open_run_weights(path: Path, *, average: bool = False) -> Weights:
    """Weights as of `open_weights`. MindCV's files do not say how images are prepared and what the classes are called: in a run
    it is what the run says, where its network is the same."""
    opened = open_weights(path, average=average)
    run = run_of(path)
    beside = run.path / "last" / "model.json" if run else None
    if opened.origin.format == "mindcv" and beside and beside.is_file():
        told = read_model_json(beside)
        same = all(
            told.arguments.get(name) == opened.description.arguments[name]
            for name in ("depths", "dims", "num_classes")
        )
        if same and told.preprocessing:
            known = replace(
                opened.description, class_names=told.class_names, preprocessing=told.preprocessing
            )
            return replace(opened, description=known)
    return opened
