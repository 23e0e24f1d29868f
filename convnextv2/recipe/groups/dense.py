"""The knobs of the dense tasks, segmentation and detection."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare
from convnextv2.sizes import MAX_ANCHOR_SCALE, MAX_REGIONS, MAX_WIDTH

_dense = partial(declare, group="dense tasks", only="train")


class DenseKnobs(Knobs):
    """The knobs of the dense tasks, segmentation and detection."""

    classes: str = _dense(
        "",
        "Table of the classes in label maps: CSV, text or JSON with the id, the name and "
        "optionally the colour of each class. If empty, a file in data_dir with a usual name is "
        "used, such as classes.csv.",
        idle=("no_maps",),
    )
    ignore_values: tuple[int, ...] | None = _dense(
        None,
        "Values in label maps that stand for no class. Their pixels count neither in the loss nor "
        "in the evaluation. A colour is the value 65536 * red + 256 * green + blue. If empty, 255, "
        "unless that is a class.",
        idle=("no_maps",),
    )
    reduce_zero_label: bool = _dense(
        False,
        "Ignore the value 0 in label maps, so that classes start at 1, as in ADE20K.",
        idle=("no_maps",),
    )
    scale_jitter: tuple[float, float] = _dense(
        (0.5, 2.0),
        "Random factor by which training images are resized: minimum and maximum. At 1, an image "
        "just covers `image_size` (segmentation) or fits inside it (detection).",
        idle=("not_dense",),
    )
    max_class_share: float = _dense(
        0.75,
        "A crop in which one class fills a larger share than this is drawn again, up to ten times. "
        "1: no limit.",
        gt=0,
        le=1,
        idle=("no_maps",),
    )
    photometric: float = _dense(
        0.0,
        "Probability of each of four colour changes: brightness, contrast, saturation and hue "
        "(0.5 in the official segmentation recipes).",
        ge=0,
        le=1,
        idle=("not_dense",),
    )
    head_channels: int = _dense(
        512, "Number of channels in the head of a segmentor.", ge=4, le=MAX_WIDTH, idle=("no_maps",)
    )
    head_norm: Literal["batch", "group"] = _dense(
        "batch",
        "Norm in the head of a segmentor: over the batch (batch; on several CUDA ranks, over the "
        "batches of all), or over each image (group), which suits batches of one to four images.",
        idle=("no_maps",),
    )
    auxiliary_weight: float = _dense(
        0.4,
        "Weight of the loss of an auxiliary head, which a segmentor has only in training. 0: no "
        "such head.",
        ge=0,
        le=1_000_000,
        idle=("no_maps",),
    )
    slide: bool = _dense(
        False,
        "Evaluate a segmentor on overlapping windows of `image_size`, with a stride of two thirds "
        "of it, instead of on whole images.",
        idle=("no_maps",),
    )
    test_scales: tuple[float, ...] = _dense(
        (1.0,),
        "Factors on the size of evaluation images. The probabilities of all sizes are averaged.",
        idle=("no_maps",),
    )
    test_flip: bool = _dense(
        False,
        "Also evaluate every image mirrored, and average the probabilities.",
        idle=("no_maps",),
    )

    annotations: Literal["auto", "coco", "voc", "yolo"] = _dense(
        "auto",
        "Format of the annotations of objects: COCO JSON, Pascal VOC or YOLO. auto: the first of "
        "COCO, YOLO and Pascal VOC that is found.",
        idle=("no_objects",),
    )
    masks: Literal["auto", "on", "off"] = _dense(
        "auto",
        "Whether a detector learns masks. auto: if the objects have masks.",
        idle=("no_objects",),
    )
    fpn_channels: int = _dense(
        256,
        "Number of channels in the feature pyramid and the mask head of a detector.",
        ge=1,
        le=MAX_WIDTH,
        idle=("no_objects",),
    )
    finest_stride: Literal[4, 8] = _dense(
        4,
        "Stride of the finest level on which a detector looks for objects. 8 takes a fraction of "
        "the time, but misses small objects.",
        unit="px",
        idle=("no_objects",),
    )
    anchor_scale: float = _dense(
        8.0,
        "Side of a detector's anchors, as a multiple of the stride of their level.",
        gt=0,
        le=MAX_ANCHOR_SCALE,
        idle=("no_objects",),
    )
    box_dim: int = _dense(
        1024,
        "Width of the two layers of a detector's box head.",
        ge=1,
        le=MAX_WIDTH,
        idle=("no_objects",),
    )
    proposals: int = _dense(
        1000,
        "Maximum number of proposals for objects that a detector examines in an image.",
        ge=1,
        le=MAX_REGIONS,
        idle=("no_objects",),
    )
    rois: int = _dense(
        512,
        "Number of proposals per image that the heads of a detector are trained on.",
        ge=4,
        le=MAX_REGIONS,
        idle=("no_objects",),
    )
    max_detections: int = _dense(
        100,
        "Maximum number of objects that a detector finds in an image.",
        ge=1,
        le=MAX_REGIONS,
        idle=("no_objects",),
    )
    soft_nms: bool = _dense(
        False,
        "Lower the scores of objects that overlap higher-scoring ones of the same class (linear "
        "soft-NMS), instead of dropping them.",
        idle=("no_objects",),
    )
