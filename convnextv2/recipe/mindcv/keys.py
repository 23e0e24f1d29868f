"""MindCV's configuration in our terms, so that a MindCV YAML or command line works unedited.

Every key of MindCV (main at 51b0636, config.py) is treated in one of five ways:

- It is one of our knobs, under the same name, such as `lr_epoch_stair`. `recipe.knobs` declares it,
  and `training.schedule` uses those of the learning rate.
- It is one of our knobs, under another name (`RENAMED`). If its values also have other names, they
  are in `VALUES`.
- It is only accepted with values that mean what we do anyway (`ONLY`). Any other value is refused,
  with the remedy.
- It concerns something that does not exist here (`NO_EFFECT`). It is checked by `TYPES`, accepted
  and announced.
- It is unknown to MindCV as well. It is refused.
"""

from __future__ import annotations

from typing import Any, Literal

from convnextv2.recipe.knobs import Recipe

RENAMED: dict[str, str] = {
    extra["mindcv"]: name
    for name, field in Recipe.model_fields.items()
    if isinstance(extra := field.json_schema_extra, dict)
    and isinstance(extra["mindcv"], str)
    and extra["mindcv"]
} | {"clip_grad": "clip_norm"}  # a switch for `clip_value`, see `habits.without_foreign`
"""MindCV's key -> our knob."""

VALUES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("amp_level", "val_amp_level"), {"O0": "float32", "O1": "auto", "O2": "auto", "O3": "auto"}
    ),
    "device_target": {"Ascend": "auto", "GPU": "cuda", "CPU": "cpu", "NPU": "npu"},
    "scheduler": {
        "cosine_decay": "cosine",
        "warmup_cosine_decay": "cosine",
        "exponential_decay": "exponential",
        "step_decay": "step",
        "multi_step_decay": "multi_step",
        "polynomial_decay": "polynomial",
        **{name: name for name in ("constant", "one_cycle", "cyclic")},
    },
    "opt": {
        **{
            name: name
            for name in (
                "sgd",
                "adam",
                "adamw",
                "lion",
                "rmsprop",
                "adagrad",
                "lamb",
                "nadam",
                "adan",
            )
        },
        "momentum": "sgd",
        "nesterov": "sgd",
    },
    "interpolation": {"pilcubic": "bicubic", "antialias": "lanczos"},
    "ckpt_save_policy": {"latest_k": "latest_k", "top_k": "top_k", "none": "all"},
    "drop_path_rate": {"none": 0.0},
    "color_jitter": {"none": 0.0},
}
"""MindCV's key -> {MindCV's value, in any letter case: our value}."""

IMPLIED: dict[tuple[str, str], tuple[str, Any]] = {
    ("interpolation", "pilcubic"): ("antialias", True),
    ("interpolation", "antialias"): ("antialias", True),
    ("opt", "nesterov"): ("nesterov", True),
    ("loss_scale_type", "auto"): ("loss_scale", 2.0**24),
}
"""MindCV's (key, value in lower case) -> another of our knobs that it also sets, with its value."""

AUTO = {
    **dict.fromkeys(
        ("amp_level", "val_amp_level"),
        "bfloat16 if the device supports it, float16 on older GPUs, otherwise float32",
    ),
    "device_target": "the best available device",
}
"""MindCV's key -> what 'auto' means. Some of its values are read as 'auto'."""

CLIP_VALUE = 15.0
"""MindCV's `clip_value` if `clip_grad` is on and no value is given."""

_OFF = frozenset({"false", "no", "0", "0.0", "none", "null", ""})

ONLY: dict[str, tuple[frozenset[str], str]] = {
    "pretrained": (_OFF | {"true", "yes", "1"}, "expected True or False."),
    "drop_rate": (_OFF, "ConvNeXt V2 has no dropout. Use drop_path_rate."),
    "filter_bias_and_bn": (
        frozenset(),
        "MindCV has removed this key. Use weight_decay_filter = norm_and_bias or disable.",
    ),
}
"""MindCV's key -> (the values that mean what we do anyway, the message about any other value).

The values are in lower case.
"""

NO_EFFECT: dict[str, str] = {
    **dict.fromkeys(("mode", "dataset_sink_mode"), "MindSpore only"),
    **dict.fromkeys(
        ("loss_scale_type", "drop_overflow_update"),
        "in float16 the scale always adapts, starting from loss_scale, and steps that overflow are "
        "skipped",
    ),
    "amp_cast_list": "autocast decides which layers run in half precision",
    "eval_shuffle": "the order does not matter in evaluation",
    "aux_factor": "there is no auxiliary head",
    "clip_value": "clip_grad is not on, or clip_norm is given",
    "config": "MindCV's note of where its options came from",
}
"""MindCV's key -> why it has no effect here."""

TYPES: dict[str, tuple[Any, str]] = {
    "mode": (Literal[0, 1], "0 or 1"),
    "loss_scale_type": (Literal["fixed", "dynamic", "auto"], "one of fixed, dynamic, auto"),
    **dict.fromkeys(
        ("dataset_sink_mode", "drop_overflow_update", "eval_shuffle"), (bool, "True or False")
    ),
    **dict.fromkeys(("aux_factor", "clip_value"), (float, "a number")),
}
"""Key of `NO_EFFECT` -> its type, and the type in words. A mistyped value is still an error."""

DEFAULTS: dict[str, Any] = {
    "out": "./ckpt",
    "seed": 42,
    "distribute": False,
    "precision": "float32",
    "val_precision": "float32",
    "val_while_train": False,
    "val_every_epochs": 1,
    "save_every_epochs": 1,
    "keep_checkpoints": 10,
    "keep_policy": "latest_k",
    "mindcv_files": True,
    "log_every_steps": 100,
    "data_dir": "./",
    "batch_size": 128,
    "shuffle": True,
    "drop_last": True,
    "image_size": 224,
    "in_channels": 3,
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.333),
    "hflip": 0.5,
    "vflip": 0.0,
    "color_jitter": 0.4,
    "auto_augment": None,
    "interpolation": "bilinear",
    "antialias": None,
    "erase_prob": 0.0,
    "erase_scale": (0.02, 0.33),
    "erase_ratio": (0.3, 3.3),
    "erase_value": 0.0,
    "erase_attempts": 10,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mix_prob": 1.0,
    "mix_switch_prob": 0.5,
    "aug_repeats": 0,
    "aug_splits": 0,
    "eval_preset": "mindcv",
    "crop_pct": 0.875,
    "gelu": "tanh",  # what MindSpore's nn.GELU computes
    "drop_path_rate": 0.0,
    "epochs": 90,
    "optimizer": "adam",
    "lr": 1e-3,
    "lr_batch_size": None,
    "scale_lr": False,
    "min_lr": 1e-6,
    "schedule": "cosine",
    "warmup_epochs": 3.0,
    "warmup_factor": 0.0,
    "decay_epochs": 100,
    "decay_rate": 0.9,
    "decay_milestones": (30, 60, 90),
    "lr_epoch_stair": False,
    "num_cycles": 1,
    "cycle_decay": 1.0,
    "betas": None,
    "eps": 1e-8,  # MindCV's flag says 1e-10, which reaches its RMSProp only (RMSPROP_EPS)
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-6,
    "weight_decay_filter": "disable",
    "layer_decay": None,
    "clip_norm": None,
    "loss_scale": 1.0,
    "accumulate": 1,
    "loss": "ce",
    "loss_reduction": "mean",
    "label_smoothing": 0.0,
    "ema": False,
    "ema_decay": 0.9999,
    "ema_form": "mindcv",
}
"""Our knob -> MindCV's default.

These knobs are missing, so that our own defaults apply: `dataset` (MindCV's 'imagenet' is any image
folder, like our ''), `workers` (no result depends on them), and `mean` and `std` (the same numbers,
on the scale from 0 to 255).
"""

_CIFAR: dict[str, Any] = {
    "crop_padding": 4,
    "hflip": 0.5,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
}
_MNIST: dict[str, Any] = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "hflip": 0.0,
    "mean": (0.1307,),
    "std": (0.3081,),
}
_BARE: dict[str, Any] = {
    "vflip": 0.0,
    "color_jitter": 0.0,
    "auto_augment": None,
    "aug_splits": 0,
    "erase_prob": 0.0,
    "interpolation": "bilinear",
    "antialias": None,
    "crop_pct": 1.0,
}
PREPARED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("cifar10", "cifar100"), _CIFAR | _BARE),
    "mnist": _MNIST | _BARE | {"in_channels": 1},
}
"""Data set -> how MindCV prepares its images, whatever the augmentation keys say.

CIFAR images are padded, cropped and flipped. Then they are resized as a whole, as MNIST images are.
"""

RMSPROP_EPS = 1e-10

REQUIRED: dict[str, str] = {"model": "mobilenet_v2_035_224"}
"""Our knob -> MindCV's default, which is not available: a recipe in MindCV's terms must set it."""

KEYS: frozenset[str] = frozenset({*RENAMED, *ONLY, *NO_EFFECT}) - frozenset(Recipe.model_fields)
"""Keys that only MindCV has. A YAML with one of them is read with `DEFAULTS`."""


NAMES: frozenset[str] = KEYS | RENAMED.keys()
"""Every name of a knob that is not ours."""


def is_accepted(key: str, value: Any) -> bool:
    """Return whether a value of a key of `ONLY` means what we do anyway."""
    return str(value).strip().lower() in ONLY[key][0]


def to_ours(key: str, value: Any) -> Any:
    """Translate MindCV's name for a value (`VALUES`). Any other value is returned unchanged."""
    ours = {name.lower(): ours for name, ours in VALUES.get(key, {}).items()}
    return ours.get(str(value).strip().lower(), value)
