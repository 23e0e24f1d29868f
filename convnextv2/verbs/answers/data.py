"""The answers of verbs that look at data."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import Lines, WrittenPath, means


class Sides(TypedDict):
    """The smallest, median and largest side of the images."""

    min: Annotated[int, means("In pixels.")]
    median: Annotated[float, means("In pixels.")]
    max: Annotated[int, means("In pixels.")]


class CorrectedData(TypedDict):
    """A data set after the faults that an audit found are left out."""

    path: Annotated[str | None, means("The table or folder for data_dir; null if nothing is left.")]
    images: Annotated[int, means("The number of images in it.")]
    dropped: Annotated[dict[str, int], means("Reason: number of images that are left out.")]
    changed: Annotated[int, means("The number of labels that were changed.")]


class ClassImages(TypedDict):
    """The number of images, objects or pixels of a class."""

    name: Annotated[str, means("The name of the class.")]
    images: Annotated[dict[str, int], means("Split: number of images that have it.")]
    amounts: Annotated[dict[str, int], means("Split: objects or pixels; empty for classification.")]


class Audited(TypedDict):
    """The result of an audit. `audit.json` has the findings as well."""

    out: WrittenPath
    data: Annotated[str, means("The folder or table.")]
    task: Annotated[str, means("classification, segmentation or detection.")]
    images: Annotated[int, means("The number of images.")]
    splits: Annotated[dict[str, int], means("Split: number of images.")]
    classes: Annotated[list[ClassImages], means("The classes.")]
    width: Annotated[Sides, means("The widths.")]
    height: Annotated[Sides, means("The heights.")]
    formats: Annotated[dict[str, int], means("Format: number of files.")]
    bands: Annotated[dict[str, int], means("Number of bands: number of files.")]
    file_bytes: Annotated[int, means("The size of all files, in bytes.")]
    counts: Annotated[dict[str, int], means("Kind of finding: how many there are.")]
    annotations: Annotated[list[str], means("The defects of the annotations.")]
    notes: Lines
    labels: Annotated[
        str, means("A message about the search for wrong labels, or why there was none.")
    ]
    corrected: CorrectedData
    seconds: Annotated[float, means("The duration, in seconds.")]


class PackedImages(TypedDict):
    """Images that were packed into tar files."""

    path: Annotated[str, means("The folder of the tar files.")]
    shards: Annotated[int, means("The number of tar files.")]
    kept: Annotated[int, means("The number of tar files that already existed.")]
    images: Annotated[int, means("The number of images.")]
    size: Annotated[int, means("The size of all tar files, in bytes.")]


_Channels = Annotated[list[float | None], means("One number for each channel.")]


_DeepChannels = Annotated[
    list[float | None], means("For more than 8 bits; one number for each channel.")
]


Statistics = TypedDict(
    "Statistics",
    {
        "images": Annotated[int, means("The number of images that were measured.")],
        "images_given": Annotated[int, means("The number of images in the data set.")],
        "in_channels": Annotated[int, means("The number of channels.")],
        "mean": _Channels,
        "std": _Channels,
        "value_range": Annotated[list[float] | None, means("null for 8-bit files.")],
        "types": Annotated[dict[str, int], means("Type of the values: number of files.")],
        "bands": Annotated[dict[str, int], means("Number of bands: number of files.")],
        "height": Annotated[Sides, means("The heights.")],
        "width": Annotated[Sides, means("The widths.")],
        "minimum": NotRequired[_DeepChannels],
        "percentile_0.1": NotRequired[_DeepChannels],
        "percentile_99.9": NotRequired[_DeepChannels],
        "maximum": NotRequired[_DeepChannels],
        "percentiles_exact": NotRequired[
            Annotated[bool, means("Whether the percentiles are exact; otherwise, within 0.4 %.")]
        ],
        "nan_or_no_data": NotRequired[
            Annotated[list[int], means("The number of such values in each channel.")]
        ],
        "infinite": NotRequired[
            Annotated[list[int], means("The number of such values in each channel.")]
        ],
        "other_bands": Annotated[list[str], means("Files with a different number of channels.")],
        "unreadable": Annotated[list[str], means("Files that cannot be read, and why.")],
    },
)
