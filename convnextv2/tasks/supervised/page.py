"""What the pages of supervised runs share: their places, the pre-training, the next steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from convnextv2.console import say
from convnextv2.data.split_names import kind_of
from convnextv2.deploy.artifact import is_artifact
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.find import find_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.masked.gallery import run_gallery
from convnextv2.tasks.supervised.set_up import same_data
from convnextv2.text import typed
from convnextv2.weights.hub import repository_of
from convnextv2.weights.opened import Weights, open_weights


def page_of(weights: Path, recipe: Recipe) -> Path:
    """Return where the page of an evaluation belongs; see `write_evaluation_report`."""
    run = run_of(weights)
    if is_artifact(weights):  # its figures are its own, and the run's page stays
        path = weights / "report.html"
    elif run and weights.parent != run.path:
        path = run.report if same_data(run.recipe, recipe) else _page_of_data(run, recipe)
    elif repository := repository_of(weights):
        path = Path(f"{repository.rpartition('/')[2]}-report.html")
    else:
        path = (
            weights / "report.html"
            if weights.is_dir()
            else weights.with_name(f"{weights.stem}-report.html")
        )
    return path


def _page_of_data(run: Run, recipe: Recipe) -> Path:
    """Return the page for other images than the run's own. The run's own page is kept."""
    folder = Path(recipe.data_dir).resolve()
    parts: list[str] = [folder.name if recipe.data_dir else recipe.dataset]
    if recipe.data_dir and kind_of(folder.name):  # every data set has a folder called test
        parts.insert(0, folder.parent.name)
    if recipe.val_split != run.recipe.val_split:
        parts.append(recipe.val_split)
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts)) or "data"
    return run.path / f"report-{name}.html"


def pretraining(
    recipe: Recipe, init: Weights | None
) -> tuple[Image.Image | None, list[dict[str, Any]] | None]:
    """Show the pre-training that a run was started from.

    Args:
        recipe: The recipe of the run.
        init: Its initial weights, if they are open.

    Returns:
        Reconstructions and the log of the pre-training run; None if there is none. A line says so
        if something is wrong with it, since the report is of another run.
    """
    try:
        if init is None:
            is_local = bool(recipe.init) and Path(recipe.init).exists()
            path = find_weights(recipe.init) if is_local else None
            if path is None or run_of(path) is None:
                return None, None
            init = open_weights(path)
        if init.description.kind != "fcmae":
            return None, None
        if not init.container.is_unchanged():
            say(f"No pre-training in the report: {init.path} has changed since the run started.")
            return None, None
        parent = run_of(init.path)
        return (run_gallery(parent, init), parent.metrics()) if parent else (None, None)
    except ConvNeXtV2Error as error:
        say(f"No pre-training in the report: {recipe.init}: {error}")
        return None, None


def next_steps(name: str, recipe: Recipe) -> list[tuple[str, str]]:
    """Return commands that make sense after a training, and what each is good for.

    Args:
        name: The run folder, as it is to be written.
        recipe: The recipe of the run.
    """
    name = typed(name)
    return [
        (f"convnextv2 predict {name} IMAGE_OR_FOLDER", "Classify new images."),
        (f"convnextv2 validate {name} --data_dir OTHER", "Measure it on other labelled images."),
        (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
        (
            f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr {recipe.lr * 2:g}",
            "Try another learning rate.",
        ),
    ]


def short(count: int) -> str:
    """Write a number of parameters with one decimal place: "3.4 M", "7.1 K", or "812"."""
    if count < 1000:
        return str(count)
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} K"
