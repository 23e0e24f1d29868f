"""The options of verbs that look at data or repack them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from convnextv2.recipe.options import Options, PathLike, argument, option
from convnextv2.sizes import MAX_CHANNELS
from convnextv2.verbs.options.shared import json_option


def _in_channels() -> Any:
    """Declare the number of channels for verbs without a recipe. Images may decide it."""
    return option(
        None,
        "Number of channels that the network takes. If empty, it is 3, or that of the first "
        "readable image if it is neither RGB nor grey.",
        metavar="N",
        ge=1,
        le=MAX_CHANNELS,
    )


@dataclass(frozen=True, kw_only=True)
class AuditOptions(
    Options,
    verb="audit",
    knobs=(
        *("train_split", "val_split", "columns", "images_dir", "image_suffix", "labels"),
        *("label_separator", "annotations", "classes", "ignore_values", "reduce_zero_label"),
        *("value_range", "max_image_pixels", "batch_size", "device", "precision", "kernels"),
    ),
):
    """Audit images before training: bad files, copies, leaks, odd images, wrong labels."""

    data: PathLike = argument(
        "DATA", "Folder of images, table, or annotated data of any task, as train takes them."
    )
    task: Literal["auto", "classification", "segmentation", "detection"] = option(
        "auto",
        "Task that the data are for. auto: detection if there are boxes, segmentation if there are "
        "label maps, else classification.",
        metavar="TASK",
    )
    in_channels: int | None = _in_channels()
    init: str = option(
        "",
        "Model whose features are used to find wrong labels: a run, weights of any format, or an "
        "artifact. A quick descriptor of the images themselves is used if this is empty, or if it "
        "tells the classes apart better.",
        metavar="WEIGHTS",
    )
    wrong_labels: Literal["drop", "keep", "change"] = option(
        "drop",
        "What to do in the corrected data with training images whose labels are probably wrong: "
        "drop the images, keep them, or change their labels to the suggested ones.",
        metavar="W",
    )
    out: PathLike = option("audit", "Folder to write.", metavar="FOLDER")
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class PackDataOptions(
    Options,
    verb="pack_data",
    knobs=("train_split", "val_split", "class_order", "columns", "images_dir", "image_suffix"),
):
    """Pack a folder or table of images into tar files in WebDataset's format, with an index."""

    data: PathLike = argument("FOLDER", "Folder of images, or a table of them.")
    shards: PathLike = argument("SHARDS", "Folder to write the tar files to.")
    images_per_shard: int = option(
        5000,
        "Number of images per tar file. The last one may hold fewer.",
        metavar="N",
        ge=1,
        le=10_000_000,
    )
    labelled: bool = option(
        True, "Pack the classes too. With False, pretrain can use the shards, and train cannot."
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions(
    Options,
    verb="statistics",
    knobs=(
        *("value_range", "train_split", "max_image_pixels", "workers", "seed"),
        *("columns", "images_dir", "image_suffix"),
    ),
):
    """Measure images, channel by channel: mean, std and value_range for a recipe."""

    data: PathLike = argument("DATA", "Folder of images, or a table. Labels are not needed.")
    in_channels: int | None = _in_channels()
    max_images: int | None = option(
        None,
        "Measure at most this many images, drawn at random from `seed`. If empty, all are "
        "measured.",
        metavar="N",
        ge=1,
        le=1_000_000_000,
    )
    json: bool = json_option()
