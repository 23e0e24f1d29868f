"""The options of verbs that train, or that are about runs and recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from convnextv2.recipe.knobs import Recipe, knobs_of
from convnextv2.recipe.options import Options, PathLike, argument, option
from convnextv2.verbs.options.shared import RECIPE, json_option

_SHOWN = (
    *("data_dir", "out", "resume", "init", "model", "epochs", "batch_size", "lr", "image_size"),
    *("device", "precision", "workers", "seed"),
)
"""Knobs of train and pretrain that most people need."""


def _show_images() -> Any:
    """Declare the option that shows what training would see."""
    return option(
        "",
        "Write the first augmented training images to this PNG file, as the network would see "
        "them, and stop before training. No run folder is written.",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(
    Options,
    verb="pretrain",
    knobs=knobs_of("pretrain"),
    takes_recipe=True,
    shown=(*_SHOWN, "mask_ratio"),
):
    """Pre-train on images without labels (FCMAE)."""

    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    show_images: PathLike = _show_images()


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    Options,
    verb="train",
    knobs=knobs_of("train"),
    takes_recipe=True,
    shown=(*_SHOWN, "val_split", "ema"),
):
    """Train a classifier, segmentor or detector, from scratch or from --init."""

    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    show_images: PathLike = _show_images()


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(Options, verb="replay"):
    """Show a step with a non-finite loss or gradient: its images, and the figures of each."""

    run: PathLike = argument("RUN", "Run folder.")
    step: int | None = option(
        None,
        "Step to show. If empty, the last one that was kept.",
        metavar="N",
        ge=1,
        le=1_000_000_000_000,
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options, verb="plan", knobs=tuple(Recipe.model_fields), takes_recipe=True):
    """Measure the first steps of a recipe to predict its time, memory and disk space."""

    verb: Literal["", "train", "pretrain"] = argument(
        "VERB", "train or pretrain. If empty, the verb that the recipe is for.", default=""
    )
    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    probe_seconds: float = option(
        30.0, "How long to measure.", metavar="S", unit="s", gt=0, le=86_400
    )
    images_per_second: float | None = option(
        None,
        "Training throughput of one device, if you know it. Nothing is measured then.",
        metavar="X",
        gt=0,
        le=1_000_000_000,
    )
    ranks: int | None = option(
        None,
        "Also plan for this many devices, each with the throughput of one; see link_gbit.",
        metavar="N",
        ge=1,
        le=1_000_000,
    )
    link_gbit: float = option(
        100.0,
        "With ranks: bandwidth of the slowest link between two devices, in each direction (full "
        "duplex).",
        metavar="G",
        unit="Gbit/s",
        gt=0,
        le=1_000_000,
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(Options, verb="recipes"):
    """List the recipes that come with the package."""

    copy: str = option(
        "", "Copy this recipe to the working folder, so that you can change it.", metavar="NAME"
    )
    schema: bool = option(
        False, "Print the JSON schema of recipes, which editors use to complete and check them."
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options, verb="demo"):
    """Pre-train, fine-tune and try a small model on images that come with the package."""

    quick: bool = option(False, "Finish in about a minute, with poor accuracy.")
    out: PathLike = option(
        "runs/demo", "Folder to write. An earlier demo in it is replaced.", metavar="FOLDER"
    )
