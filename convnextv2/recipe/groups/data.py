"""The knobs of the data: where the images are, which are used, and how they are read."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare
from convnextv2.sizes import MAX_CHANNELS

_data = partial(declare, group="data")


class DataKnobs(Knobs):
    """The knobs of the data: where the images are, which are used, and how they are read."""

    data_dir: str = _data(
        "",
        "Image folder (with train/ and val/ inside, or with one folder for each class), a table "
        "(CSV, TSV, JSONL and others) with a path and a label in each row, or tar files in "
        "WebDataset's format: their folder, or a pattern such as train-{000..146}.tar, which may "
        "be on a server (s3://...). hf:OWNER/NAME is a data set on the Hugging Face Hub.",
    )
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = (
        _data("", "Named data set to use instead of a folder; 'bundled' comes with the package.")
    )
    dataset_download: bool = _data(
        False, "Allow a named data set to be downloaded.", idle=("is_here",)
    )
    train_split: str = _data(
        "train",
        "Subfolder with the training images, or the name of their split in a table.",
        idle=("has_splits",),
    )
    val_split: str = _data(
        "val",
        "Subfolder with the validation images, or the name of their split in a table.",
        idle=("has_splits", "no_validation"),
        only="train",
    )
    class_order: str = _data(
        "auto",
        "How the rows of foreign weights without class names are matched with the classes of the "
        "data. text: class names sorted as text, as torchvision does. natural: numbers in names "
        "sorted by value, as timm does. number: each folder is named after its row. A file: one "
        "class name per line, in the order of the rows. auto: depends on the format of the "
        "weights, and on whether folders are named by ImageNet's ids or by numbers.",
        only="train",
        idle=("has_classes",),
    )
    columns: str = _data(
        "",
        "Columns of a table to use if their names are not the usual ones, such as "
        "path=image_id,label=class,split=fold.",
        idle=("no_table",),
    )
    labels: Literal["auto", "single", "multi"] = _data(
        "auto",
        "How many labels an image of a table has: one (single), or any number (multi; "
        "docs/how-to/multi-label.md). auto: several if the table shows that.",
        idle=("no_table",),
    )
    label_separator: str = _data(
        "",
        "Separator of the names in a table's column of labels, such as '|'. space stands for a "
        "blank. If empty, it is detected.",
        idle=("no_table",),
    )
    images_dir: str = _data(
        "",
        "Folder that the paths in a table are relative to. If empty, the folder of the table.",
        idle=("no_table",),
    )
    image_suffix: str = _data(
        "",
        "Extension to add to the file names in a table that have none, such as .jpg.",
        idle=("no_table",),
    )
    val_fraction: float = _data(
        0.1,
        "Share of the images that is held out for validation if the data have no split of their "
        "own.",
        gt=0,
        lt=1,
        only="train",
    )
    num_samples: int | None = _data(
        None,
        "Use at most this many training images, drawn at random from `seed`.",
        unit="images",
        ge=1,
        le=1_000_000_000,
    )
    bad_images: Literal["fail", "skip", "quarantine"] = _data(
        "fail",
        "What to do with a file that is truncated or is not an image: stop (fail), or leave it "
        "out and count it (skip). quarantine also lists it in the run's quarantine.jsonl, and "
        "the run never reads it again. Without a run, quarantine means skip.",
    )
    data_wait_s: float = _data(
        300.0,
        "How long to wait for images while their file server or folder is unavailable. 0: do not "
        "wait.",
        unit="s",
        ge=0,
        le=31_536_000,
    )
    max_image_pixels: int = _data(
        178_956_970,
        "Size of the largest image that is decoded.",
        unit="pixels",
        ge=1,
        le=1_000_000_000_000,
    )
    batch_size: int | Literal["auto"] = _data(
        64,
        "Number of images that a rank processes at once. auto: as many as fit into memory, with "
        "`accumulate` adapted to keep the global batch. Only training searches for this number; "
        "other verbs use their default.",
        unit="images",
    )
    shuffle: bool = _data(True, "Shuffle the training images in every epoch.")
    drop_last: bool = _data(
        True, "Drop the last, incomplete batch of each training epoch.", mindcv="drop_remainder"
    )
    workers: int | Literal["auto"] = _data(
        "auto",
        "Number of processes that decode and augment images. 0: the main process does it.",
        mindcv="num_parallel_workers",
    )
    shard_cache_gb: float = _data(
        20.0,
        "Local disk space for caching images from tar files on a server. Images that do not fit "
        "are fetched each time.",
        unit="GB",
        ge=0,
        le=1_000_000,
    )
    cache_mb: int = _data(
        0,
        "Memory for decoded training images, shared by the workers of a rank. Images that do not "
        "fit are decoded each time. With a cache, JPEG files are decoded at full resolution.",
        unit="MB",
        ge=0,
        le=1_000_000_000,
    )
    image_size: int | tuple[int, int] | Literal["auto"] = _data(
        224,
        "Side of the square images, or their height and width. With `time`, auto takes the largest "
        "size at which 20 epochs fit.",
        unit="px",
        mindcv="image_resize",
    )
    in_channels: int = _data(
        3,
        "Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of bands in "
        "the files (docs/how-to/preprocessing.md).",
        ge=1,
        le=MAX_CHANNELS,
    )
    value_range: tuple[float, float] | None = _data(
        None,
        "For files with more than 8 bits: the values that become black and white, the same for "
        "all channels and images. Values outside are clipped. If empty, the type of the values "
        "decides (docs/how-to/preprocessing.md).",
        idle=("has_8_bits",),
    )
