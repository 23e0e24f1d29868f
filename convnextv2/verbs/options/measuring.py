"""The options of verbs that measure, compare or explain models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.recipe.knobs import knobs_in_group
from convnextv2.recipe.options import Options, PathLike, argument, option
from convnextv2.recipe.prior import Prior
from convnextv2.verbs.options.shared import (
    COVERAGE,
    INFERENCE,
    LABELLED_IMAGES,
    PRIOR,
    RECIPE,
    RUN,
    json_option,
)

_PREPARED = (
    *("image_size", "in_channels", "value_range", "interpolation", "antialias", "eval_preset"),
    *("crop_pct", "mean", "std"),
)
"""Knobs of the preprocessing of evaluation images."""

_RANKS = ("distribute", "rank_timeout_s", "data_wait_s")
"""Knobs that concern ranks and unavailable data."""


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(
    Options,
    verb="validate",
    knobs=(
        *(*INFERENCE, *LABELLED_IMAGES, *_PREPARED, *_RANKS),
        *("val_precision", "init", "ema", "model", "depths", "dims", "num_classes", "mindcv_files"),
        *("task", "classes", "ignore_values", "reduce_zero_label", "slide", "test_scales"),
        *("test_flip", "annotations"),
    ),
    takes_recipe=True,
):
    """Evaluate a run, or the weights in --init (MindCV: --ckpt_path), on labelled images."""

    run: PathLike | None = argument("RUN", RUN, default=None)
    config: PathLike | None = option(None, RECIPE, metavar="RECIPE")
    prior: Prior = option("trained", PRIOR, metavar="P", ge=0, le=1_000)
    coverage: float | None = option(
        None,
        f"{COVERAGE} What predict reports about unknown images is fitted on half of the images, "
        "unless that was done before, and tested on the rest.",
        metavar="C",
        gt=0,
        lt=1,
    )
    tta: Literal["none", "flip", "scales"] = option(
        "none",
        "Average a classifier's probabilities over several views of each image: the image and its "
        "mirror image (flip), or both at 1, 1.25 and 1.5 times the size (scales).",
        metavar="V",
    )
    answers: PathLike = option(
        "",
        "JSON or CSV file that lists all right classes of each image. The share of images whose "
        "most probable class is one of them is then measured too.",
        metavar="FILE",
    )
    sizes: tuple[int, ...] = option(
        (), "Also measure a classifier at these image sizes.", metavar="S", unit="px"
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options, verb="compare", knobs=(*INFERENCE, *LABELLED_IMAGES)):
    """Compare runs: accuracy image by image, curves, classes, settings and cost."""

    runs: Sequence[PathLike] = argument(
        "RUN", "Two or more run folders, weights files or artifacts.", many=True
    )
    out: PathLike = option("comparison.html", "Page to write.", metavar="FILE")
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(Options, verb="probe", knobs=(*INFERENCE, *LABELLED_IMAGES), bad_images="skip"):
    """Measure frozen features by nearest neighbours and a linear probe."""

    run: PathLike = argument("RUN", RUN)
    k: int = option(20, "Number of nearest neighbours that vote.", metavar="K", ge=1, le=1_000_000)
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(
    Options, verb="explain", knobs=(*INFERENCE, *LABELLED_IMAGES), bad_images="skip", batch_size=32
):
    """Explain a classifier by maps of single images, or by its embeddings and mistakes."""

    run: PathLike = argument("RUN", "Run folder, checkpoint or weights file.")
    images: Sequence[PathLike] = argument(
        "IMAGE",
        "Image files, or folders of them, to explain one by one. Without any, the labelled images "
        "of the run or of data_dir are explained as a whole.",
        default=(),
        many=True,
    )
    out: PathLike = option("explanation.html", "Page to write.", metavar="FILE")
    target: str = option(
        "", "Class to explain. If empty, the most probable one of each image.", metavar="CLASS"
    )
    against: str = option(
        "",
        "Class to compare with. The maps then show what favours the target over this class.",
        metavar="CLASS",
    )
    patch_px: int | None = option(
        None,
        "Side of the square that covers a part of the image, at the size that the network sees. If "
        "empty, a seventh of the image's shorter side.",
        metavar="PX",
        unit="px",
        ge=1,
        le=LONGEST_SIDE_PX,
    )
    step_px: int | None = option(
        None,
        "Distance from one square to the next. If empty, half the side of the square.",
        metavar="PX",
        unit="px",
        ge=1,
        le=LONGEST_SIDE_PX,
    )
    pictures: str = option(
        "",
        "Folder to also write the maps to, as PNG files. If empty, they are on the page only.",
        metavar="FOLDER",
    )
    mistakes: int = option(24, "Number of mistakes to show.", metavar="N", ge=0, le=100_000)
    neighbours: int = option(
        2, "Number of training images to show beside each mistake.", metavar="N", ge=0, le=100_000
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(
    Options,
    verb="benchmark",
    knobs=(
        *("device", "precision", "kernels", "compile", "tile", "mask_ratio", "drop_path_rate"),
        *("optimizer", *sorted(knobs_in_group("data")), *sorted(knobs_in_group("augmentation"))),
    ),
    batch_size=32,
):
    """Measure training steps, inference and data loading on this machine."""

    works: Sequence[str] = argument(
        "WORK",
        "What to measure: pretrain, train, inference, loader. If none is given, all are measured, "
        "but loader only if data_dir or dataset is given.",
        default=(),
        many=True,
    )
    models: str = option("atto,tiny", "Model sizes, separated by commas.", metavar="SIZES")
    backends: str = option(
        "installed",
        "Inference engines, separated by commas: eager, compiled, aoti, onnxruntime, openvino. "
        "installed: all that are available here.",
        metavar="B",
    )
    seconds: float = option(
        10.0, "How long to measure each row.", metavar="S", unit="s", ge=0, le=86_400
    )
    json: bool = json_option()
