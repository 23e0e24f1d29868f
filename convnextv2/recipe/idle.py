"""The conditions under which knobs have no effect, and the reasons that users are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from convnextv2.recipe.knobs import Recipe


class IdleRule(NamedTuple):
    """A condition under which a knob has no effect.

    Attributes:
        holds: Returns True for the recipes that meet the condition.
        why: The reason that the user is given.
    """

    holds: Callable[[Recipe], bool]
    why: str


IDLE_RULES: dict[str, IdleRule] = {
    "no_momentum": IdleRule(
        lambda r: r.optimizer not in ("sgd", "rmsprop"), "only sgd and rmsprop have it"
    ),
    "no_betas": IdleRule(
        lambda r: r.optimizer in ("sgd", "rmsprop", "adagrad"), "the optimizer has none"
    ),
    "no_eps": IdleRule(lambda r: r.optimizer in ("sgd", "lion"), "the optimizer has none"),
    "no_grn": IdleRule(lambda r: r.block != "v2", "the blocks have no GRN"),
    "no_probe": IdleRule(lambda r: r.probe_every_epochs is None, "probe_every_epochs is not set"),
    "has_policy": IdleRule(lambda r: r.auto_augment is not None, "auto_augment takes its place"),
    "no_erasing": IdleRule(lambda r: r.erase_prob == 0, "erase_prob is 0"),
    "pads": IdleRule(lambda r: r.crop_padding > 0, "crop_padding takes its place"),
    "no_mixing": IdleRule(lambda r: r.mixup + r.cutmix == 0, "mixup and cutmix are off"),
    "not_both": IdleRule(lambda r: r.mixup * r.cutmix == 0, "mixup and cutmix are not both on"),
    "no_smoothing": IdleRule(lambda r: r.loss == "asl_multi_label", "asl_multi_label has none"),
    "no_effective": IdleRule(
        lambda r: r.class_weights != "effective", "class_weights is not effective"
    ),
    "no_positives": IdleRule(
        lambda r: r.labels == "single" or r.loss == "asl_multi_label",
        "it is for bce and several labels per image",
    ),
    "has_splits": IdleRule(lambda r: r.dataset not in ("", "imagenet"), "the dataset has its own"),
    "no_table": IdleRule(
        lambda r: r.dataset not in ("", "imagenet"), "they are for tables in data_dir"
    ),
    "has_8_bits": IdleRule(lambda r: r.dataset not in ("", "imagenet"), "its images have 8 bits"),
    "is_here": IdleRule(
        lambda r: r.dataset_download and r.dataset == "bundled", "it comes with the package"
    ),
    "no_validation": IdleRule(lambda r: not r.val_while_train, "val_while_train is off"),
    "keeps_all": IdleRule(lambda r: r.keep_policy == "all", "all are kept"),
    "no_checkpoint": IdleRule(
        lambda r: not r.init and (r.resume_init or r.resume_opt),
        "there is no checkpoint in init (ckpt_path)",
    ),
    "has_classes": IdleRule(
        lambda r: r.resume_init or r.resume_opt, "the classes are those of the checkpoint"
    ),
    "no_scale": IdleRule(lambda r: r.precision in ("float32", "bfloat16"), "only float16 needs it"),
    "no_warmup": IdleRule(lambda r: r.warmup_epochs == 0 and not r.time, "there is no warm-up"),
    "no_ema": IdleRule(lambda r: not r.ema, "ema is off"),
    "no_layer_decay": IdleRule(lambda r: r.layer_decay is None, "layer_decay is not set"),
    "has_time": IdleRule(lambda r: bool(r.time), "time decides it"),
    "no_teacher": IdleRule(lambda r: not r.teacher, "there is no teacher"),
    "no_soft_labels": IdleRule(lambda r: r.distill == "features", "features have none"),
    "no_length": IdleRule(lambda r: r.schedule not in ("cosine", "step"), "the schedule has none"),
    "no_floor": IdleRule(
        lambda r: r.schedule not in ("cosine", "one_cycle", "cyclic"), "the schedule has none"
    ),
    "no_rate": IdleRule(
        lambda r: r.schedule not in ("exponential", "step", "multi_step", "polynomial"),
        "the schedule has none",
    ),
    "not_dense": IdleRule(
        lambda r: r.task == "classification", "it is for task segmentation or detection"
    ),
    "no_maps": IdleRule(lambda r: r.task != "segmentation", "it is for task segmentation"),
    "no_objects": IdleRule(lambda r: r.task != "detection", "it is for task detection"),
    "no_milestones": IdleRule(lambda r: r.schedule != "multi_step", "the schedule has none"),
    "no_cycles": IdleRule(
        lambda r: r.schedule not in ("cosine", "cyclic"), "the schedule has none"
    ),
    "no_cycle_decay": IdleRule(lambda r: r.schedule != "cosine", "the schedule has none"),
}
"""The conditions under which knobs have no effect, by name."""
