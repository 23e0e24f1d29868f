"""The knobs of augmentation in training, and of preprocessing in evaluation."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LONGEST_SIDE_PX,
    Interpolation,
    Preset,
)
from convnextv2.recipe.groups.declare import Knobs, declare
from convnextv2.sizes import MAX_RESIZING

_augment = partial(declare, group="augmentation")


class AugmentationKnobs(Knobs):
    """The knobs of augmentation in training, and of preprocessing in evaluation."""

    scale: tuple[float, float] = _augment(
        (0.08, 1.0),
        "Share of the image's area that a random crop keeps: minimum and maximum.",
        idle=("pads",),
    )
    ratio: tuple[float, float] = _augment(
        (3 / 4, 4 / 3),
        "Aspect ratio (width / height) of a random crop: minimum and maximum.",
        idle=("pads",),
    )
    crop_padding: int = _augment(
        0,
        "Pad each side with this many black pixels and crop back to size at a random place. This "
        "replaces the random resized crop. 0: off.",
        unit="px",
        ge=0,
        le=LONGEST_SIDE_PX,
    )
    hflip: float = _augment(0.5, "Probability of a horizontal flip.", ge=0, le=1)
    vflip: float = _augment(0.0, "Probability of a vertical flip.", ge=0, le=1)
    color_jitter: float | tuple[float, ...] = _augment(
        0.0,
        "Strength of random changes of brightness, contrast and saturation: one number for all "
        "three, or one for each. A fourth number is for hue. Not used with `auto_augment`.",
        idle=("has_policy",),
    )
    auto_augment: str | None = _augment(
        None, "Augmentation policy, for example randaug-m9-mstd0.5-inc1."
    )
    interpolation: Interpolation = _augment("bicubic", "Interpolation method for resizing images.")
    antialias: bool | None = _augment(
        None,
        "Antialias when an image is made smaller. If empty, `eval_preset` decides: all presets do "
        "so except mindcv.",
    )
    erase_prob: float = _augment(
        0.0,
        "Probability of erasing a random rectangle.",
        mindcv="re_prob",
        ge=0,
        le=1,
        only="train",
    )
    erase_scale: tuple[float, float] = _augment(
        (0.02, 1 / 3),
        "Share of the image's area that is erased: minimum and maximum.",
        mindcv="re_scale",
        idle=("no_erasing",),
    )
    erase_ratio: tuple[float, float] = _augment(
        (0.3, 3.3),
        "Aspect ratio of the erased rectangle: minimum and maximum.",
        mindcv="re_ratio",
        idle=("no_erasing",),
    )
    erase_value: Literal["random"] | float | tuple[float, ...] = _augment(
        "random",
        "What fills the erased rectangle. 'random': noise from N(0, 1) for each pixel. Numbers "
        "(one, or one for each channel): values after normalisation.",
        mindcv="re_value",
        idle=("no_erasing",),
    )
    erase_attempts: int = _augment(
        10,
        "Number of attempts to place the rectangle. If all fail, the image is left as it is.",
        mindcv="re_max_attempts",
        ge=1,
        le=10_000,
        idle=("no_erasing",),
    )
    mixup: float = _augment(
        0.0, "Alpha of the Beta distribution of mixup. 0: off.", ge=0, le=1_000, only="train"
    )
    cutmix: float = _augment(
        0.0, "Alpha of the Beta distribution of cutmix. 0: off.", ge=0, le=1_000, only="train"
    )
    mix_prob: float = _augment(
        1.0,
        "Probability that mixup or cutmix is applied to a batch.",
        mindcv="cutmix_prob",
        ge=0,
        le=1,
        idle=("no_mixing",),
        only="train",
    )
    mix_switch_prob: float = _augment(
        0.5,
        "Probability of cutmix instead of mixup if both are on.",
        ge=0,
        le=1,
        idle=("not_both",),
        only="train",
    )
    aug_repeats: int = _augment(
        0,
        "Number of copies of each image that is drawn, each augmented differently. The length of "
        "the epoch stays the same, so fewer images are drawn. 0: one.",
        ge=0,
        le=10_000,
    )
    aug_splits: Literal[0, 3] = _augment(
        0,
        "3: each batch holds one clean and two augmented versions of every image (3 x batch_size "
        "images), as the jsd loss needs. 0: off.",
    )
    eval_preset: Preset = _augment(
        "timm", "How evaluation images are prepared (docs/how-to/preprocessing.md)."
    )
    crop_pct: float = _augment(
        0.875,
        "In evaluation, the short side is resized to image_size / crop_pct before the centre crop.",
        ge=1 / MAX_RESIZING,
        le=1,
    )
    mean: tuple[float, ...] = _augment(
        IMAGENET_MEAN,
        "Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if any "
        "value of mean or std is above 1).",
    )
    std: tuple[float, ...] = _augment(
        IMAGENET_STD, "Standard deviation of each channel, on the scale of `mean`."
    )
