"""The parts that the pages of all tasks share: paths, titles, summaries and the pre-training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from PIL import Image

from convnextv2.console import say
from convnextv2.data.split_names import kind_of
from convnextv2.deploy.artifact import is_artifact
from convnextv2.errors import ConvNeXtV2Error, DataError, RecipeError
from convnextv2.evaluation.page import build_page
from convnextv2.files import reason_of
from convnextv2.find import find_weights, run_of, same_data
from convnextv2.places import check_place
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.evaluated import Evaluated
from convnextv2.tasks.masked.gallery import run_gallery
from convnextv2.weights.hub import repository_of
from convnextv2.weights.opened import Weights, open_weights

Example = TypeVar("Example")


def run_page(
    run: Run | None,
    recipe: Recipe,
    init: Weights | None,
    *,
    summary: Mapping[str, str],
    channels: int,
    next_steps: Sequence[tuple[str, str]],
    **parts: Any,
) -> str:
    """Build the page of a run or of an evaluation as HTML.

    Args:
        run: The run; None for weights on their own.
        recipe: The recipe.
        init: The weights that the run was started from, if they are open.
        summary: Headline figures by label, ready to print.
        channels: The number of channels of the images.
        next_steps: Commands, and what each is good for.
        **parts: The parts that only this task has, as `build_page` takes them.
    """
    gallery, pretrain_metrics = pretraining(recipe.init, init)
    return build_page(
        title(recipe),
        summary=summary,
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else (),
        gallery=gallery,
        channels=channels,
        pretrain_metrics=pretrain_metrics,
        next_steps=next_steps,
        **parts,
    )


def title(recipe: Recipe) -> str:
    """Name the network and the data of a recipe, for the title of a report."""
    network = recipe.model.replace("convnextv2_", "ConvNeXt V2 ").replace(
        "custom", f"ConvNeXt V2 {recipe.dims}"
    )
    data = Path(recipe.data_dir).name or {"bundled": "the bundled Fashion-MNIST images"}.get(
        recipe.dataset, recipe.dataset
    )
    return f"{network} on {data}"


def summary_of(
    recipe: Recipe,
    measured: Evaluated | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the entries that the summary of every page has.

    Args:
        recipe: The recipe.
        measured: The result of the evaluation; None if there was none.
        more: Further entries about the model, which follow its size.
    """
    summary = {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
    }
    if measured is None:
        return summary | dict(more)
    summary |= {"parameters": short(measured.parameters), **more}
    if measured.skipped:
        summary["validation images left out"] = str(len(measured.skipped))
    return summary


def read_example(read: Callable[[], Example]) -> Example | None:
    """Read an image that a page shows; None, with a line for the user, if that is impossible.

    The image may have been damaged or deleted since the evaluation.
    """
    try:
        return read()
    except DataError as error:
        say(f"An example is left out of the report: {error}")
        return None


def page_of(weights: Path, recipe: Recipe) -> Path:
    """Return the path of the page of an evaluation; see `report.write_report`."""
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


def place_of_page(weights: Path, recipe: Recipe) -> tuple[Path, str]:
    """Find a place where the page of an evaluation can be written, before any work is done.

    Args:
        weights: The path of the weights that are evaluated.
        recipe: The recipe, which names the data.

    Returns:
        The path, as `page_of` returns it, and an empty text. If nothing can be written there, a
        path in the current folder, and a line that says why.

    Raises:
        RecipeError: Nothing can be written in the current folder either.
    """
    page = page_of(weights, recipe)
    try:
        check_place(page)
        return page, ""
    except RecipeError as error:
        reason = error.__cause__
    owner = f"{page.parent.resolve().name}-" if page.name.startswith("report") else ""
    instead = Path(f"{owner}{page.name}")
    why = reason_of(reason) if isinstance(reason, OSError) else "it cannot be written"
    try:
        check_place(instead)
    except RecipeError:
        raise RecipeError(
            f"{page}: the report cannot be written there ({why}), nor in the current folder. Run "
            "the same command in a folder that is writable."
        ) from reason
    return instead, (
        f"The report is written to the current folder, because nothing can be written in "
        f"{page.parent} ({why})."
    )


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
    source: str, init: Weights | None
) -> tuple[Image.Image | None, list[dict[str, Any]] | None]:
    """Return reconstructions and the log of the pre-training that a run was started from.

    Args:
        source: The knob `init`, which names the weights that the run was started from.
        init: These weights, if they are open.

    Returns:
        The picture of reconstructions and the log of the pre-training run; None for both if there
        is no such run, or if it cannot be read. In the latter case, a line says why.
    """
    try:
        if init is None:
            is_local = bool(source) and Path(source).exists()
            path = find_weights(source) if is_local else None
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
        say(f"No pre-training in the report: {source}: {error}")
        return None, None


def short(count: int) -> str:
    """Write a number of parameters with one decimal place: "3.4 M", "7.1 K", or "812"."""
    if count < 1000:
        return str(count)
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} K"
