"""Check the knobs of a recipe that depend on each other.

Each mistake is one line that starts with the knob it belongs to and ends with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from convnextv2.durations import read_duration
from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.recipe.channels import channel_mistakes
from convnextv2.recipe.columns import read_columns
from convnextv2.sizes import MAX_BLOCKS, MAX_RESIZING, MAX_WIDTH

if TYPE_CHECKING:
    from convnextv2.recipe.knobs import Recipe

NOT_KNOBS = ("images", "classes", "ranks")
"""Names that `resume_allow` accepts in addition to knobs."""

LOGGERS = ("wandb", "mlflow", "trackio")
"""Names that `loggers` accepts."""

_RANGES: dict[str, tuple[float | None, float | None]] = {
    "workers": (0, 1_024),
    "batch_size": (1, 1_000_000),
    "image_size": (1, None),  # its upper bound is checked separately
    "depths": (1, MAX_BLOCKS),
    "dims": (1, MAX_WIDTH),
    "color_jitter": (0, 100),
    "decay_milestones": (0, 1_000_000),
    "ignore_values": (0, 2**31 - 1),
    "scale": (None, 100),
    "ratio": (None, 1_000),
    "erase_scale": (None, 100),
    "erase_ratio": (None, 1_000),
    "erase_value": (-1_000_000, 1_000_000),
    "scale_jitter": (None, MAX_RESIZING),
    "test_scales": (None, MAX_RESIZING),
    "mean": (-1_000_000_000, 1_000_000_000),
    "std": (None, 1_000_000_000),
    "value_range": (-1e30, 1e30),
}
"""Bounds of knobs that may also be a word or several numbers: the lowest and the highest value.

The declaration of such a knob cannot state the bounds itself. None stands for a bound that another
check states.
"""
_LARGEST_WEIGHT = 1_000_000_000

_FOR_CLASSIFICATION = (
    *("dataset", "dataset_download", "class_order", "columns", "labels", "label_separator"),
    *("images_dir", "image_suffix", "num_classes", "best_by", "mindcv_files"),
    *("scale", "ratio", "crop_padding", "vflip", "color_jitter", "auto_augment", "erase_prob"),
    *("erase_scale", "erase_ratio", "erase_value", "erase_attempts", "mixup", "cutmix", "mix_prob"),
    *("mix_switch_prob", "aug_splits", "eval_preset", "crop_pct", "head_init_scale"),
    *("resume_init", "resume_opt", "loss", "pos_weight", "loss_reduction", "class_weights"),
    *("class_weights_beta", "sampling", "logit_adjustment", "label_smoothing"),
    *("teacher", "distill", "distill_weight", "distill_temperature", "task_weight", "unlabelled"),
)
"""Knobs that only classification uses."""
_OTHER_REMEDIES = {"color_jitter": "photometric", "scale": "scale_jitter"}
"""Knobs of classification, and the similar ones of segmentation and detection."""


def pair_mistakes(recipe: Recipe) -> Iterator[str]:
    """Yield one line for each mistake."""
    yield from _run_mistakes(recipe)
    yield from _number_mistakes(recipe)
    yield from _data_mistakes(recipe)
    yield from _augmentation_mistakes(recipe)
    yield from _optimization_mistakes(recipe)
    yield from _dense_mistakes(recipe)
    yield from _balance_mistakes(recipe)
    yield from block_mistakes(recipe)
    yield from _distillation_mistakes(recipe)
    if not recipe.init:  # weights state their channels, and the mean and std of their images
        yield from channel_mistakes(recipe)


def block_mistakes(recipe: Recipe) -> Iterator[str]:
    """Yield one line for each knob that needs GRN, if the blocks have none."""
    needs = {
        "freeze_grn": "there is no GRN to freeze",
        "mindcv_files": "MindCV's ConvNeXt V2 has GRN",
        "resume_init": "MindCV's ConvNeXt V2 has GRN",
        "resume_opt": "MindCV's ConvNeXt V2 has GRN",
    }
    for name, why in needs.items():
        if recipe.block != "v2" and getattr(recipe, name):
            yield (
                f"{name} = True: {why}, and block is {recipe.block}. Leave {name} out, or set "
                "block = v2."
            )


def _run_mistakes(recipe: Recipe) -> Iterator[str]:
    if (recipe.model == "custom") != (recipe.depths is not None and recipe.dims is not None):
        yield f"model = {recipe.model!r}: only custom takes depths and dims, and it needs both."
    if recipe.resume and recipe.overwrite:
        yield f"resume = {recipe.resume}: cannot be combined with overwrite. Drop one."
    known = (*type(recipe).model_fields, *NOT_KNOBS)
    if odd := [name for name in recipe.resume_allow or () if name not in known]:
        yield f"resume_allow = {odd[0]}: expected names of knobs, or {', '.join(NOT_KNOBS)}."
    if odd := [name for name in recipe.loggers or () if name not in LOGGERS]:
        yield f"loggers = {odd[0]}: expected some of {', '.join(LOGGERS)}."
    if recipe.keep_policy == "top_k" and not recipe.val_while_train:
        yield (
            "keep_policy = top_k: only validation shows which checkpoints are best. Set "
            "val_while_train = True."
        )
    yield from _time_mistakes(recipe)
    if recipe.elastic and recipe.batch_size == "auto":
        yield (
            "elastic = True: sums depend on the batch size, which auto fits to the machine. Give "
            "batch_size as a number."
        )
    if recipe.elastic and not recipe.drop_last:
        yield "elastic = True: every step must be complete. Set drop_last = True."
    yield from _sharding_mistakes(recipe)


def _sharding_mistakes(recipe: Recipe) -> Iterator[str]:
    if not recipe.shard:
        return
    if recipe.elastic:
        yield (
            "shard = True: PyTorch does not add the gradients of a sharded model in the order that "
            "elastic needs. Drop one of the two."
        )
    if recipe.batch_size == "auto":
        yield (
            "shard = True: batch_size auto tries steps with the whole model on one device, which "
            "shard is meant to avoid. Give batch_size as a number."
        )
    if recipe.compile:
        yield (
            "shard = True: compile does not support blocks whose weights are gathered during a "
            "step. Set compile = False."
        )
    if recipe.optimizer in ("lamb", "adan"):
        yield (
            f"shard = True: {recipe.optimizer} computes with whole tensors only. Use another "
            "optimizer."
        )
    if recipe.mindcv_files:
        yield (
            "shard = True: MindCV's files need all weights and moments on one rank. Set "
            "mindcv_files = False."
        )
    for name in ("health_every_epochs", "probe_every_epochs"):
        if getattr(recipe, name) is not None:
            yield (
                f"shard = True: {name} needs the whole model on one rank, and no rank holds it. "
                f"Leave {name} out, or set shard = False."
            )


def _time_mistakes(recipe: Recipe) -> Iterator[str]:
    if recipe.image_size == "auto":
        yield from _auto_size_mistakes(recipe)
    if not recipe.time:
        return
    try:
        read_duration(recipe.time)
    except ValueError:
        yield (
            f"time = {recipe.time!r}: expected a duration such as 30m, 1h30m or 2d."
            f"{_with_letters(recipe.time)}"
        )
    if recipe.schedule != "cosine":
        yield (
            f"time = {recipe.time}: it only works with the cosine schedule. Set schedule = cosine."
        )
    if recipe.mindcv_files:
        yield (
            f"time = {recipe.time}: MindCV's files state the whole schedule at the start. Give "
            "epochs instead, or set mindcv_files = False."
        )


def _with_letters(time: str) -> str:
    """Say how a duration with colons is written: 1:30 may be hours or minutes."""
    if not re.fullmatch(r"\s*\d+(:\d+){1,2}\s*", time):
        return ""
    parts = time.strip().split(":")
    readings = ["hms"] if len(parts) == 3 else ["hm", "ms"]
    texts = [
        "".join(f"{int(part)}{unit}" for part, unit in zip(parts, units, strict=True))
        for units in readings
    ]
    return f" Write {' or '.join(texts)}."


def _auto_size_mistakes(recipe: Recipe) -> Iterator[str]:
    if not (recipe.time or recipe.resume):
        yield "image_size = auto: the size is chosen to fit `time`, which is not set. Set time too."
    for name in ("teacher", "shard"):
        if getattr(recipe, name):
            yield (
                f"image_size = auto: the cost of a step cannot be measured with {name} = "
                f"{getattr(recipe, name)}. Give a number of px."
            )


def _number_mistakes(recipe: Recipe) -> Iterator[str]:
    for name in ("scale", "ratio", "erase_scale", "erase_ratio", "scale_jitter"):
        least, most = getattr(recipe, name)
        if not 0 < least <= most:
            yield f"{name} = {getattr(recipe, name)}: expected 0 < least <= most."
    for name, (lowest, highest) in _RANGES.items():
        value = getattr(recipe, name)
        several = value if isinstance(value, tuple) else (value,)
        numbers = [number for number in several if isinstance(number, int | float)]
        if numbers and lowest is not None and min(numbers) < lowest:
            yield f"{name} = {value}: expected no value below {lowest:,}."
        if numbers and highest is not None and max(numbers) > highest:
            yield f"{name} = {value}: expected no value above {highest:,}."
    if recipe.image_size != "auto" and max(recipe.height_and_width()) > LONGEST_SIDE_PX:
        yield f"image_size = {recipe.image_size}: expected at most {LONGEST_SIDE_PX:,} px a side."
    if isinstance(recipe.color_jitter, tuple) and len(recipe.color_jitter) not in (3, 4):
        yield f"color_jitter = {recipe.color_jitter}: expected 1, 3 or 4 numbers."
    if not all(0 <= beta < 1 for beta in recipe.betas or ()):
        yield f"betas = {recipe.betas}: expected 2 numbers >= 0 and < 1."


def _data_mistakes(recipe: Recipe) -> Iterator[str]:
    if len(recipe.mean) != len(recipe.std):
        yield f"std = {recipe.std}: expected as many numbers as mean has ({len(recipe.mean)})."
    if min(recipe.std) <= 0:
        yield f"std = {recipe.std}: expected numbers > 0."
    if recipe.value_range is not None and not recipe.value_range[0] < recipe.value_range[1]:
        yield f"value_range = {recipe.value_range}: expected two numbers, low < high."
    if recipe.dataset_download and recipe.dataset in ("", "imagenet"):
        yield (
            "dataset_download = True: image folders cannot be downloaded. Drop it, or set dataset: "
            "cifar10, ..."
        )
    try:
        read_columns(recipe.columns)
    except ValueError as error:
        yield f"columns = {recipe.columns!r}: {error}, such as path=image_id,label=class."
    if set(recipe.image_suffix) & {"/", "\\"}:
        yield f"image_suffix = {recipe.image_suffix!r}: expected an extension such as .jpg."


def _augmentation_mistakes(recipe: Recipe) -> Iterator[str]:
    if recipe.loss == "jsd" and recipe.aug_splits != 3:
        yield "loss = jsd: compares three versions of each image. Set aug_splits = 3."
    if recipe.aug_splits and not recipe.auto_augment:
        yield (
            f"aug_splits = {recipe.aug_splits}: needs a policy for the augmented copies. Set "
            "auto_augment."
        )
    if recipe.aug_splits and recipe.mixup + recipe.cutmix > 0:
        yield (
            f"aug_splits = {recipe.aug_splits}: its images must not be mixed. Set mixup = 0 and "
            "cutmix = 0."
        )


def _optimization_mistakes(recipe: Recipe) -> Iterator[str]:
    if recipe.scale_lr and recipe.lr_batch_size is None:
        yield (
            "scale_lr = True: lr_batch_size must say which global batch lr is meant for. Set it "
            "too."
        )
    warms_up = recipe.warmup_epochs or recipe.lr_epoch_stair
    if recipe.schedule in ("one_cycle", "cyclic") and warms_up:
        yield (
            f"schedule = {recipe.schedule}: has its own warm-up. Set warmup_epochs = 0, "
            "lr_epoch_stair = False."
        )
    if recipe.nesterov and recipe.optimizer != "sgd":
        yield (
            f"nesterov = True: {recipe.optimizer} has no such variant. Use sgd, or nadam in place "
            "of adam."
        )
    if recipe.loss_reduction == "sum" and recipe.loss not in ("ce", "bce"):
        yield (
            f"loss_reduction = sum: {recipe.loss} always takes the mean over the images. Use mean."
        )


def _dense_mistakes(recipe: Recipe) -> Iterator[str]:
    if not recipe.test_scales or min(recipe.test_scales) <= 0:
        yield f"test_scales = {recipe.test_scales}: expected numbers > 0."
    if recipe.task == "classification":
        return
    fields = type(recipe).model_fields
    wrong = [
        name
        for name in _FOR_CLASSIFICATION
        if getattr(recipe, name) != fields[name].default
        and not (recipe.task == "detection" and name == "images_dir")
    ]
    if wrong:
        near = [
            f"{_OTHER_REMEDIES[name]} in place of {name}"
            for name in wrong
            if name in _OTHER_REMEDIES
        ]
        instead = f", or use {', '.join(near)}" if near else ""
        are = "is" if len(wrong) == 1 else "are"
        yield (
            f"task = {recipe.task}: {', '.join(wrong)} {are} for classification only. Leave "
            f"{'it' if len(wrong) == 1 else 'them'} out{instead}."
        )
    if recipe.task == "segmentation" and recipe.elastic and recipe.head_norm == "batch":
        yield (
            "elastic = True: the statistics of a batch norm depend on the ranks. Set head_norm = "
            "group."
        )


def _balance_mistakes(recipe: Recipe) -> Iterator[str]:
    weights, sampling, tau = recipe.class_weights, recipe.sampling, recipe.logit_adjustment
    is_weighted, is_sampled = weights != "none", sampling not in ("natural", 1)
    if not isinstance(sampling, str) and not 0 <= sampling <= 1:
        yield (
            f"sampling = {sampling:g}: expected natural, balanced, sqrt, or a number from 0 "
            "(balanced) to 1 (natural)."
        )
    table = weights if isinstance(weights, dict) else {}
    if wrong := [name for name in table if not 0 < table[name] <= _LARGEST_WEIGHT]:
        weight = table[wrong[0]]
        limit = f" and <= {_LARGEST_WEIGHT:,}" if weight > 0 else ""
        yield f"class_weights = {wrong[0]}={weight:g}: expected numbers > 0{limit}."
    if is_sampled and not recipe.shuffle:
        yield f"sampling = {sampling}: this draws images at random. Set shuffle = True."
    if is_weighted and recipe.loss not in ("ce", "bce"):
        yield (
            f"class_weights: {recipe.loss} does not support them. Use loss = ce or bce, or "
            "sampling instead."
        )
    if tau and recipe.loss != "ce":
        yield (
            f"logit_adjustment = {tau:g}: applies to the softmax of ce, not to {recipe.loss}. "
            "Use loss = ce, or sampling instead."
        )
    if is_weighted and is_sampled:
        yield (
            f"sampling = {sampling}: corrects for the same imbalance as class_weights, so both "
            "together correct twice. Keep one."
        )
    if is_weighted and tau:
        yield (
            f"logit_adjustment = {tau:g}: corrects for the same imbalance as class_weights, so "
            "both together correct twice. Keep one."
        )
    if tau and sampling in ("balanced", 0):
        yield (
            f"logit_adjustment = {tau:g}: has no effect on classes that are drawn equally often. "
            "Use sampling = natural or sqrt with it."
        )


def _distillation_mistakes(recipe: Recipe) -> Iterator[str]:
    if recipe.unlabelled and not recipe.teacher:
        yield (
            f"unlabelled = {recipe.unlabelled!r}: images without labels teach nothing without a "
            "teacher. Set teacher too."
        )
    if recipe.unlabelled and recipe.dataset not in ("", "imagenet"):
        yield (
            f"unlabelled = {recipe.unlabelled!r}: needs image files, and the images of dataset "
            f"{recipe.dataset} are held in memory. Give data_dir in place of dataset."
        )
    if recipe.unlabelled and recipe.sampling not in ("natural", 1):
        yield (
            f"sampling = {recipe.sampling}: draws images by their classes, and those of unlabelled "
            "have none. Use sampling = natural, or class_weights."
        )
