"""Finds the weights that a user means, and the run that weights belong to."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

from convnextv2.checkpoint import is_sharded
from convnextv2.errors import RunError
from convnextv2.recipe.files import began_in
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.text import typed
from convnextv2.weights.catalog import near_names, public_weights
from convnextv2.weights.containers import CONFIGURATIONS
from convnextv2.weights.description import read_model_json
from convnextv2.weights.hub import download, is_hub_name
from convnextv2.weights.names import library_of
from convnextv2.weights.opened import Weights, open_weights
from convnextv2.weights.safetensors import WEIGHTS

ARTIFACT_CARD = "artifact.json"
"""The file that makes a folder an artifact; see `deploy.artifact`."""

PROGRAMS = ("model.onnx", "model.pt2", "model.xml")
"""The files of exported models, which have no weights that could be read."""


def find_weights(path: str | Path) -> Path:
    """Find the weights that a user means.

    Args:
        path: A run folder (best/ is taken, else last/), a checkpoint folder, a file, a folder in
            the layout of the Hugging Face Hub, the name of a repository on the Hub, which is
            downloaded, or a short name of `weights.catalog`.

    Returns:
        A weights file or a Hub folder.

    Raises:
        RunError: There are no weights, or a folder may not be entered, so this is unknown.
        CheckpointError: The repository cannot be downloaded.
    """
    name, path = str(path), Path(path)
    if os.path.isfile(path):  # False also for a name that no file can have
        return path
    candidates = [path / "best" / WEIGHTS, path / "last" / WEIGHTS, path / WEIGHTS]
    for candidate in candidates:
        if has_file(candidate):
            return path if _is_hub_folder(path) and candidate.parent == path else candidate
    if _is_hub_folder(path):  # a Hub folder whose weights are in shards
        return path
    if is_hub_name(name):
        return download(name)
    if not os.path.exists(path):
        if known := public_weights(name):
            return download(known.repository)
        near = f" Did you mean {' or '.join(names)}?" if (names := near_names(name)) else ""
        raise RunError(
            f"{path}: no such file or folder. Expected a run folder, a checkpoint, a weights "
            f"file, or a name that `convnextv2 models --weights` lists.{near}"
        )
    _check_no_artifact(path)
    if is_sharded(path):
        raise RunError(
            f"{path}: is a sharded checkpoint, which only --resume can read. Give its run, whose "
            "last/ and best/ have the weights in one file."
        )
    if Run(path).last_checkpoint() is not None:  # whose weights may not be the averaged ones
        raise RunError(
            f"{path}: has checkpoints, but neither best/ nor last/. Resume the run, which writes "
            f"last/ again: --out {typed(path)} --resume."
        )
    expected = ", ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise RunError(f"{path}: no weights in it (expected {expected}).")


def has_file(path: Path) -> bool:
    """Return whether a weights file is there.

    `os.path.isfile` also returns False if the system does not tell. The weights of last/ would then
    silently replace those of a best/ that cannot be entered, or that lies on a missing disk.

    Raises:
        RunError: The system does not tell, or a link leads to nothing.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except ValueError:  # no file can have this name
        return False
    except OSError as error:
        links = [each for each in (path, path.parent) if os.path.islink(each)]
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise RunError(
                f"{path}: cannot be accessed ({error.strerror}). Fix that, or give a weights file "
                "that can be read."
            ) from None
        for link in links:
            if not os.path.exists(link):
                raise RunError(
                    f"{link}: is a link to {os.readlink(link)}, which is gone. Fix the link, or "
                    "give a file of weights."
                ) from None
        return False


def _check_no_artifact(path: Path) -> None:
    """Raise RunError if a folder without weights is an artifact, a part of one, or holds some."""
    if os.path.isfile(path / ARTIFACT_CARD):
        raise RunError(
            f"{path}: is an artifact, whose weights cannot be read. Give the run or the weights "
            "that it was made from."
        )
    if found := [name for name in PROGRAMS if os.path.isfile(path / name)]:
        raise RunError(
            f"{path}: has {found[0]}, but no {ARTIFACT_CARD}, which an artifact needs. Copy its "
            "whole folder, or export the model again."
        )
    if path.name == "artifacts" and (found := sorted(map(str, path.glob(f"*/{ARTIFACT_CARD}")))):
        raise RunError(
            f"{path}: holds artifacts. Give one of them, such as {typed(Path(found[0]).parent)}."
        )


def _is_hub_folder(path: Path) -> bool:
    return any(os.path.isfile(path / name) for name in CONFIGURATIONS)


def run_of(weights: Path) -> Run | None:
    """Find the run that a weights file belongs to.

    Args:
        weights: The file. MindCV's files lie in the run folder itself, others in a folder of it.

    Returns:
        The run, or None if the file does not lie in one.
    """
    if weights.suffix == ".ckpt":
        folders = weights.parents[:1]
    elif len(weights.parents) < 3:  # a path from inside the run
        folders = Path(os.path.abspath(weights)).parents[1:3]
    else:
        folders = weights.parents[1:3]
    for folder in folders:
        if (folder / "recipe.yaml").is_file():
            return Run(folder)
    return None


def recipe_of(weights: Path) -> Recipe | None:
    """Read the recipe of the run that a weights file belongs to; None if it lies in none.

    Its data paths become absolute: in the recipe they are relative to the folder in which the run
    was started. If that folder is unknown, relative paths are left empty.
    """
    run = run_of(weights)
    if run is None:
        return None
    recipe = run.recipe
    began = began_in(run.path, recipe.out)
    places = {}
    for name in ("data_dir", "probe_dir"):
        data = getattr(recipe, name)
        if data and not os.path.isabs(data):
            places[name] = str(began / data) if began else ""
    return recipe.model_copy(update=places)


def same_data(recipe: Recipe, other: Recipe) -> bool:
    """Return whether two recipes name the same validation images."""
    folders = [Path(each.data_dir).resolve() if each.data_dir else None for each in (recipe, other)]
    names = [(each.dataset, each.val_split) for each in (recipe, other)]
    return folders[0] == folders[1] and names[0] == names[1]


def open_run_weights(path: Path, *, average: bool = False) -> Weights:
    """Open weights, and complete a file of MindCV with what its run knows.

    MindCV's files do not say how images are prepared and what the classes are called. If such a
    file lies in a run with the same network, both are taken from the run.

    Args:
        path: The file or folder.
        average: Whether to take the moving average beside the weights; see `open_weights`.

    Returns:
        The weights.

    Raises:
        CheckpointError: The file cannot be opened; see `open_weights`.
    """
    opened = open_weights(path, average=average)
    run = run_of(path)
    beside = run.path / "last" / "model.json" if run else None
    if library_of(opened.origin.format) == "mindcv" and beside and beside.is_file():
        stated = read_model_json(beside)
        same = all(
            stated.arguments.get(name) == opened.description.arguments[name]
            for name in ("depths", "dims", "num_classes")
        )
        if same and stated.preprocessing:
            known = replace(
                opened.description,
                class_names=stated.class_names,
                preprocessing=stated.preprocessing,
                balance=stated.balance,
            )
            return replace(opened, description=known)
    return opened
