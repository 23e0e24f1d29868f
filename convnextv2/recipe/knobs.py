"""Every knob of every verb, once: name, type, default, unit, help, and the name MindCV has for it.

The YAML file, the command line and the Python call all end in one `Recipe`, so all three meet the same checks (`recipe.read`).
Values are what a user means; what they imply (device, precision, number of workers) is decided in the room that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convnextv2.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preset
from convnextv2.recipe.pairs import pair_mistakes


class Idle(NamedTuple):
    """When a knob does nothing.

    Attributes:
        holds: For which recipes.
        why: What a user is told.
    """

    holds: Callable[[Recipe], bool]
    why: str


def _knob(
    default: Any,
    help: str,
    *,
    group: str,
    unit: str = "",
    mindcv: str = "",
    only: Literal["", "train", "pretrain"] = "",
    idle: tuple[str, ...] = (),
    **checks: Any,
) -> Any:
    """Declare a knob.

    Args:
        default: Where nobody sets it.
        help: One or two sentences.
        group: The heading of `--help` that it stands under.
        unit: Of its numbers.
        mindcv: MindCV's name for it where that differs; it is accepted everywhere.
        only: The one of train and pretrain that uses it; empty: both.
        idle: When it does nothing; names of `_IDLE`.
        **checks: Bounds of its numbers, as pydantic names them.

    Returns:
        A field of pydantic.
    """
    extra = {"group": group, "unit": unit, "mindcv": mindcv, "only": only, "idle": list(idle)}
    return Field(default, description=help, json_schema_extra=extra, **checks)  # type: ignore[arg-type]


_IDLE: dict[str, Idle] = {
    "no_momentum": Idle(
        lambda r: r.optimizer not in ("sgd", "rmsprop"), "only sgd and rmsprop have it"
    ),
    "no_betas": Idle(
        lambda r: r.optimizer in ("sgd", "rmsprop", "adagrad"), "the optimizer has none"
    ),
    "no_eps": Idle(lambda r: r.optimizer in ("sgd", "lion"), "the optimizer has none"),
    "has_policy": Idle(lambda r: r.auto_augment is not None, "auto_augment takes its place"),
    "no_erasing": Idle(lambda r: r.erase_prob == 0, "erase_prob is 0"),
    "pads": Idle(lambda r: r.crop_padding > 0, "crop_padding takes its place"),
    "no_mixing": Idle(lambda r: r.mixup + r.cutmix == 0, "mixup and cutmix are off"),
    "not_both": Idle(lambda r: r.mixup * r.cutmix == 0, "mixup and cutmix are not both on"),
    "no_smoothing": Idle(lambda r: r.loss == "asl_multi_label", "asl_multi_label has none"),
    "has_splits": Idle(lambda r: r.dataset not in ("", "imagenet"), "the dataset has its own"),
    "no_table": Idle(
        lambda r: r.dataset not in ("", "imagenet"), "they are for tables in data_dir"
    ),
    "has_8_bits": Idle(lambda r: r.dataset not in ("", "imagenet"), "its images have 8 bits"),
    "is_here": Idle(lambda r: r.dataset_download and r.dataset == "bundled", "it is here already"),
    "no_validation": Idle(lambda r: not r.val_while_train, "val_while_train is off"),
    "keeps_all": Idle(lambda r: r.keep_policy == "all", "all are kept"),
    "no_checkpoint": Idle(
        lambda r: not r.init and (r.resume_init or r.resume_opt),
        "there is no checkpoint in init (ckpt_path)",
    ),
    "has_classes": Idle(
        lambda r: r.resume_init or r.resume_opt, "the classes are those of the checkpoint"
    ),
    "no_scale": Idle(lambda r: r.precision in ("float32", "bfloat16"), "only float16 needs it"),
    "no_warmup": Idle(lambda r: r.warmup_epochs == 0, "there is no warm-up"),
    "no_ema": Idle(lambda r: not r.ema, "ema is off"),
    "no_layer_decay": Idle(lambda r: r.layer_decay is None, "layer_decay is not set"),
    "no_length": Idle(lambda r: r.schedule not in ("cosine", "step"), "the schedule has none"),
    "no_floor": Idle(
        lambda r: r.schedule not in ("cosine", "one_cycle", "cyclic"), "the schedule has none"
    ),
    "no_rate": Idle(
        lambda r: r.schedule not in ("exponential", "step", "multi_step", "polynomial"),
        "the schedule has none",
    ),
    "no_milestones": Idle(lambda r: r.schedule != "multi_step", "the schedule has none"),
    "no_cycles": Idle(lambda r: r.schedule not in ("cosine", "cyclic"), "the schedule has none"),
    "no_cycle_decay": Idle(lambda r: r.schedule != "cosine", "the schedule has none"),
}
"""When a knob does nothing, by a name for that."""

_run = partial(_knob, group="run")
_data = partial(_knob, group="data")
_augment = partial(_knob, group="augmentation")
_model = partial(_knob, group="model")
_optim = partial(_knob, group="optimization")
_pretrain = partial(_knob, group="pre-training", only="pretrain")


class Recipe(BaseModel):
    """One run, described completely. Frozen: a changed recipe is a new one (`recipe.model_copy(update=...)`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # --- run ---------------------------------------------------------------------------------------------------------------
    out: str = _run("", "Run folder to write. Empty: runs/VERB-MODEL.", mindcv="ckpt_save_dir")
    resume: bool | Literal["auto"] = _run(
        False,
        "Continue the run in `out` from its last checkpoint, up to `epochs`; auto: start it where "
        "it has none, so that one command serves for the first start and for every later one.",
    )
    resume_allow: tuple[str, ...] | None = _run(
        None,
        "What may differ from the run that is resumed, by name: knobs, images, classes, precision, "
        "ranks. Anything else that changes what is learned is refused.",
    )
    overwrite: bool = _run(False, "Delete what is in `out` and start anew.")
    seed: int = _run(
        42, "Every random choice follows from it and from the position in the run.", ge=0, lt=2**31
    )
    device: str = _run(
        "auto", "auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).", mindcv="device_target"
    )
    distribute: bool | Literal["auto"] = _run(
        "auto", "Use the ranks that torchrun, mpirun or SLURM started."
    )
    elastic: bool = _run(
        False,
        "Give the same weights bit for bit on any number of ranks: a step has accumulate x ranks "
        "batches, a power of two, whose gradients are added in a fixed order.",
    )
    rank_timeout_s: int = _run(
        600, "How long to wait for a rank that does not answer before the job ends.", unit="s", ge=1
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _run(
        "auto",
        "Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.",
        mindcv="amp_level",
    )
    compile: bool = _run(False, "torch.compile the step (needs a compiler; slow first step).")
    kernels: Literal["auto", "native", "plain"] = _run(
        "auto",
        "On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.",
    )
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = _run(
        "same",
        "Arithmetic of `validate`; same: that of `precision`.",
        mindcv="val_amp_level",
        only="train",
    )
    val_while_train: bool = _run(
        True, "Evaluate on the validation images during training.", only="train"
    )
    val_every_epochs: int = _run(
        1,
        "Evaluate every so many epochs (and after the last).",
        unit="epochs",
        mindcv="val_interval",
        ge=1,
        idle=("no_validation",),
        only="train",
    )
    save_every_epochs: int = _run(
        1,
        "Save a checkpoint every so many epochs (and after the last).",
        unit="epochs",
        mindcv="ckpt_save_interval",
        ge=1,
    )
    save_every_steps: int | None = _run(
        None, "Save one every so many steps, too.", unit="steps", ge=1
    )
    save_every_minutes: float | None = _run(
        None, "Save one when the last is so many minutes old, too.", unit="min", gt=0
    )
    async_save: bool = _run(
        True, "Write checkpoints while training goes on; takes memory for a copy of one."
    )
    bad_steps: Literal["stop", "skip"] = _run(
        "stop",
        "What to do with a step whose loss or gradient is not finite; its batch is kept in "
        "bad_steps/ for `replay`. skip leaves the step out, up to 10 in a row.",
    )
    keep_checkpoints: int = _run(
        2,
        "How many checkpoints to keep beside best/, by `keep_policy`.",
        mindcv="keep_checkpoint_max",
        ge=1,
        idle=("keeps_all",),
    )
    keep_policy: Literal["latest_k", "top_k", "all"] = _run(
        "latest_k",
        "Which: the newest, those with the best top-1 (and the newest), or all.",
        mindcv="ckpt_save_policy",
    )
    mindcv_files: bool = _run(
        False, "Write MindCV's files too: result.log and MindSpore checkpoints by MindCV's names."
    )
    log_every_steps: int = _run(
        50, "Steps between log lines.", unit="steps", mindcv="log_interval", ge=1
    )
    tensorboard: bool = _run(True, "Write TensorBoard events into the run folder.")

    # --- data --------------------------------------------------------------------------------------------------------------
    data_dir: str = _data(
        "",
        "Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.",
    )
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = (
        _data("", "A named set instead of a folder; 'bundled' comes with the package.")
    )
    dataset_download: bool = _data(False, "Allow a named set to be downloaded.", idle=("is_here",))
    train_split: str = _data("train", "Sub-folder with the training images.", idle=("has_splits",))
    val_split: str = _data(
        "val",
        "Sub-folder with the validation images.",
        idle=("has_splits", "no_validation"),
        only="train",
    )
    class_order: str = _data(
        "auto",
        "How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision "
        "does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class "
        "name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.",
        only="train",
        idle=("has_classes",),
    )
    columns: str = _data(
        "",
        "Columns of a table where their names are not the usual ones, such as "
        "path=image_id,label=class,split=fold.",
        idle=("no_table",),
    )
    images_dir: str = _data(
        "",
        "Folder that the paths in a table start from. Empty: the folder of the table.",
        idle=("no_table",),
    )
    image_suffix: str = _data(
        "", "Ending to add to names in a table that have none, such as .jpg.", idle=("no_table",)
    )
    val_fraction: float = _data(
        0.1,
        "Share of the images held out for validation where the folder has no split.",
        gt=0,
        lt=1,
        only="train",
    )
    num_samples: int | None = _data(
        None, "Use at most this many training images (a fixed random choice).", unit="images", ge=1
    )
    bad_images: Literal["fail", "skip", "quarantine"] = _data(
        "fail",
        "What to do with a file that is no image or is truncated: stop, or leave it out and count "
        "it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it "
        "again; without a run it is skip.",
    )
    data_wait_s: float = _data(
        300.0,
        "How long images are waited for when their file server or folder is away; 0: not at all.",
        unit="s",
        ge=0,
    )
    max_image_pixels: int = _data(
        178_956_970, "Largest image that is decoded.", unit="pixels", ge=1
    )
    batch_size: int | Literal["auto"] = _data(
        64,
        "Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so "
        "that the global batch is kept (in training; elsewhere the default).",
        unit="images",
    )
    shuffle: bool = _data(True, "Shuffle the training images anew in every epoch.")
    drop_last: bool = _data(
        True, "Leave out the last, smaller batch of an epoch in training.", mindcv="drop_remainder"
    )
    workers: int | Literal["auto"] = _data(
        "auto",
        "Processes that decode and augment; 0: none beside the main one.",
        mindcv="num_parallel_workers",
    )
    cache_mb: int = _data(
        0,
        "Memory for decoded training images, shared by the workers of a rank; what does not fit is decoded each time. With it, "
        "JPEGs are decoded whole.",
        unit="MB",
        ge=0,
    )
    image_size: int | tuple[int, int] = _data(
        224, "Side of the images, or height and width.", unit="px", mindcv="image_resize"
    )
    in_channels: int = _data(
        3,
        "Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files "
        "have (docs/how-to/preprocessing.md).",
        ge=1,
    )
    value_range: tuple[float, float] | None = _data(
        None,
        "For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies "
        "outside is cut off. Empty: as docs/how-to/preprocessing.md says.",
        idle=("has_8_bits",),
    )

    # --- augmentation (training) and preprocessing (evaluation) --------------------------------------------------------------
    scale: tuple[float, float] = _augment(
        (0.08, 1.0),
        "Share of the image's area that a random crop keeps: least, most.",
        idle=("pads",),
    )
    ratio: tuple[float, float] = _augment(
        (3 / 4, 4 / 3), "Width/height of a random crop: least, most.", idle=("pads",)
    )
    crop_padding: int = _augment(
        0,
        "Pad with black by so many pixels and crop back at a random place, in place of the random resized crop; 0: off.",
        unit="px",
        ge=0,
    )
    hflip: float = _augment(0.5, "Probability of a horizontal flip.", ge=0, le=1)
    vflip: float = _augment(0.0, "Probability of a vertical flip.", ge=0, le=1)
    color_jitter: float | tuple[float, ...] = _augment(
        0.0,
        "Strength of random brightness, contrast, saturation (and, as 4th number, hue). Not used with `auto_augment`.",
        idle=("has_policy",),
    )
    auto_augment: str | None = _augment(None, "Policy, for example randaug-m9-mstd0.5-inc1.")
    interpolation: Interpolation = _augment("bicubic", "How images are resized.")
    antialias: bool | None = _augment(
        None,
        "Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).",
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
        "Share of the image's area that is erased: least, most.",
        mindcv="re_scale",
        idle=("no_erasing",),
    )
    erase_ratio: tuple[float, float] = _augment(
        (0.3, 3.3),
        "Aspect ratio of the erased rectangle: least, most.",
        mindcv="re_ratio",
        idle=("no_erasing",),
    )
    erase_value: Literal["random"] | float | tuple[float, ...] = _augment(
        "random",
        "What fills it: 'random' is noise from N(0, 1) per pixel; numbers (one, or one for each channel) are normalised values.",
        mindcv="re_value",
        idle=("no_erasing",),
    )
    erase_attempts: int = _augment(
        10,
        "Tries to place the rectangle; failing that, the image stays whole.",
        mindcv="re_max_attempts",
        ge=1,
        idle=("no_erasing",),
    )
    mixup: float = _augment(0.0, "Alpha of mixup's Beta distribution; 0: off.", ge=0, only="train")
    cutmix: float = _augment(
        0.0, "Alpha of cutmix's Beta distribution; 0: off.", ge=0, only="train"
    )
    mix_prob: float = _augment(
        1.0,
        "Probability that a batch is mixed at all.",
        mindcv="cutmix_prob",
        ge=0,
        le=1,
        idle=("no_mixing",),
        only="train",
    )
    mix_switch_prob: float = _augment(
        0.5,
        "Probability of cutmix where both are on.",
        ge=0,
        le=1,
        idle=("not_both",),
        only="train",
    )
    aug_repeats: int = _augment(
        0,
        "How often each image occurs in an epoch, each time augmented anew (an epoch keeps its length); 0: once.",
        ge=0,
    )
    aug_splits: Literal[0, 3] = _augment(
        0,
        "3: each batch holds every image clean and twice augmented (3 x batch_size), as the jsd loss needs it.",
    )
    eval_preset: Preset = _augment(
        "timm", "How evaluation images are prepared (docs/how-to/preprocessing.md)."
    )
    crop_pct: float = _augment(
        0.875,
        "Evaluation: image_size / crop_pct is the short side before the centre crop.",
        gt=0,
        le=1,
    )
    mean: tuple[float, ...] = _augment(
        IMAGENET_MEAN,
        "Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).",
    )
    std: tuple[float, ...] = _augment(
        IMAGENET_STD, "Channel standard deviations, on the scale of `mean`."
    )

    # --- model -------------------------------------------------------------------------------------------------------------
    model: str = _model(
        "convnextv2_atto",
        "convnextv2_ atto, femto, pico, nano, tiny, base, large or huge, or 'custom'.",
    )
    depths: tuple[int, int, int, int] | None = _model(None, "Blocks per stage, for model: custom.")
    dims: tuple[int, int, int, int] | None = _model(None, "Channels per stage, for model: custom.")
    num_classes: int | None = _model(
        None, "Number of classes; empty: as many as the data have.", ge=1, only="train"
    )
    stem_stride: Literal[1, 2, 4] = _model(
        4, "Stride of the stem: 4 for photographs, 2 or 1 for small images."
    )
    gelu: Literal["exact", "tanh"] = _model("exact", "Form of GELU; MindCV's weights want 'tanh'.")
    grn_scope: Literal["image", "batch"] = _model(
        "image", "What GRN's statistics are taken over; 'batch' matches the official sparse code."
    )
    norm_eps: float = _model(
        1e-6, "Epsilon of the final norm; transformers' checkpoints have 1e-12.", gt=0
    )
    drop_path_rate: float = _model(
        0.0, "Stochastic depth of the last block; grows linearly from 0.", ge=0, lt=1
    )
    head_init_scale: float = _model(
        1.0, "Factor on the head's initial weights; 0.001 when fine-tuning.", ge=0, only="train"
    )
    grad_checkpoint: bool = _model(
        False, "Recompute activations in the backward pass: less memory, more time."
    )
    init: str = _model(
        "",
        "Weights to start from: a run folder, a weights file of any known format, or OWNER/NAME on the Hugging Face Hub.",
        mindcv="ckpt_path",
    )
    resume_init: bool = _model(
        False,
        "Continue at the epoch that a MindSpore checkpoint in `init` states (MindCV's ckpt_path), not at 0.",
        idle=("no_checkpoint",),
    )
    resume_opt: bool = _model(
        False,
        "Take the optimizer's state too from the MindSpore checkpoint in `init`.",
        idle=("no_checkpoint",),
    )
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = _model(
        "none",
        "What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or all but norm and head.",
        only="train",
    )

    # --- optimization ------------------------------------------------------------------------------------------------------
    epochs: int = _optim(
        100, "Passes over the training images.", unit="epochs", mindcv="epoch_size", ge=1
    )
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"
    ] = _optim(
        "adamw", "Update rule; lion, lamb and adan need the extra [optimizers].", mindcv="opt"
    )
    lr: float = _optim(1e-3, "Peak learning rate, for a global batch of `lr_batch_size`.", ge=0)
    lr_batch_size: int | None = _optim(
        None,
        "Global batch for which `lr` is stated; empty: for whatever batch is used.",
        unit="images",
        ge=1,
    )
    scale_lr: bool = _optim(False, "Multiply `lr` and `min_lr` by global batch / lr_batch_size.")
    min_lr: float = _optim(
        1e-6, "Learning rate at the end of the cosine.", ge=0, idle=("no_floor",)
    )
    schedule: Literal[
        "cosine",
        "constant",
        "exponential",
        "step",
        "multi_step",
        "polynomial",
        "one_cycle",
        "cyclic",
    ] = _optim("cosine", "Course of the learning rate after the warm-up.", mindcv="scheduler")
    warmup_epochs: float = _optim(
        0.0, "Linear warm-up at the start, counted in `epochs`.", unit="epochs", ge=0
    )
    warmup_factor: float = _optim(
        0.0, "Share of `lr` at the first step of the warm-up.", ge=0, le=1, idle=("no_warmup",)
    )
    decay_epochs: int | None = _optim(
        None,
        "Length of a cosine, or the period of step; empty: all epochs after the warm-up.",
        unit="epochs",
        ge=1,
        idle=("no_length",),
    )
    decay_rate: float = _optim(
        0.9,
        "Factor of exponential, step and multi_step; power of polynomial.",
        gt=0,
        idle=("no_rate",),
    )
    decay_milestones: tuple[int, ...] = _optim(
        (30, 60, 90),
        "Epochs after the warm-up at which multi_step decays.",
        mindcv="multi_step_decay_milestones",
        idle=("no_milestones",),
    )
    lr_epoch_stair: bool = _optim(False, "Keep the learning rate constant within an epoch.")
    num_cycles: int = _optim(
        1, "Cosines one after the other, or periods of cyclic.", ge=1, idle=("no_cycles",)
    )
    cycle_decay: float = _optim(
        1.0, "Factor on the peak from one cosine to the next.", gt=0, idle=("no_cycle_decay",)
    )
    betas: tuple[float, float] | None = _optim(
        None,
        "Averaging factors; empty: the optimizer's own ((0.9, 0.999) for adamw, adam, nadam and lamb).",
        idle=("no_betas",),
    )
    eps: float = _optim(1e-8, "Epsilon of adaptive optimizers.", gt=0, idle=("no_eps",))
    momentum: float = _optim(0.9, "Momentum of sgd and rmsprop.", ge=0, lt=1, idle=("no_momentum",))
    nesterov: bool = _optim(False, "Nesterov's form of sgd's momentum.", mindcv="use_nesterov")
    weight_decay: float = _optim(
        0.05,
        "Weight decay; decoupled in adamw, lion, lamb and adan, added to the gradient elsewhere.",
        ge=0,
    )
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = _optim(
        "norm_and_bias",
        "Spared from weight decay: norms, biases, GRN and the mask token; nothing (disable); or norms and GRN only (auto).",
    )
    layer_decay: float | None = _optim(
        None,
        "Learning-rate factor per layer, from the head (1) down to the stem.",
        gt=0,
        le=1,
        only="train",
    )
    layer_decay_form: Literal["single", "group"] = _optim(
        "single",
        "A layer is one block, or a group of blocks (base and large in the paper).",
        idle=("no_layer_decay",),
        only="train",
    )
    clip_norm: float | None = _optim(None, "Clip the gradient's global norm.", gt=0)
    loss_scale: float = _optim(
        65536.0,
        "In float16: factor on the loss at the start; halved on overflow, doubled after 2000 good steps.",
        ge=1,
        idle=("no_scale",),
    )
    global_batch: int | None = _optim(
        None,
        "Images in one step, over all ranks; `accumulate` follows from it, and with batch_size auto "
        "both are chosen to keep it. Empty: batch_size x accumulate x ranks.",
        unit="images",
        ge=1,
    )
    accumulate: int = _optim(
        1, "Batches whose gradients make one step.", mindcv="gradient_accumulation_steps", ge=1
    )
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = _optim(
        "ce",
        "Softmax or binary cross entropy, asymmetric loss, or Jensen-Shannon divergence (with aug_splits 3).",
        only="train",
    )
    loss_reduction: Literal["mean", "sum"] = _optim(
        "mean", "Mean or sum over the batch (ce and bce).", mindcv="reduction", only="train"
    )
    label_smoothing: float = _optim(
        0.0,
        "Share of the target that is spread over all classes.",
        ge=0,
        lt=1,
        idle=("no_smoothing",),
        only="train",
    )
    ema: bool = _optim(False, "Keep a moving average of the weights, and evaluate that.")
    ema_decay: float = _optim(0.9999, "Its decay per step.", ge=0, lt=1, idle=("no_ema",))
    ema_form: Literal["warmup", "mindcv", "constant"] = _optim(
        "warmup",
        "Decay after t steps: min(decay, (1 + t) / (10 + t)); decay * (1 - exp(-t / 2000)) (mindcv); decay (constant).",
        idle=("no_ema",),
    )

    # --- pre-training (FCMAE) ----------------------------------------------------------------------------------------------
    mask_ratio: float = _pretrain(0.6, "Share of the tiles that is hidden.", gt=0, lt=1)
    tile: int | None = _pretrain(
        None, "Side of a tile; empty: the total stride (8 x stem_stride).", unit="px", ge=1
    )
    norm_target: bool = _pretrain(
        True, "Normalise the pixels of each masked tile before they are compared."
    )
    decoder_dim: int = _pretrain(512, "Channels of the decoder.", ge=1)
    decoder_depth: int = _pretrain(1, "Blocks of the decoder.", ge=1)

    def images_per_batch(self, default: int = 64) -> int:
        """Give batch_size as a number.

        Args:
            default: What auto means where no batch is looked for.
        """
        return default if self.batch_size == "auto" else self.batch_size

    @model_validator(mode="after")
    def _check_pairs(self) -> Recipe:
        """Check knobs that only make sense together."""
        if mistakes := list(pair_mistakes(self)):
            raise ValueError("\n".join(mistakes))
        return self


def default_of(name: str) -> Any:
    """The default of a knob."""
    return Recipe.model_fields[name].default


def _extra(name: str, key: str) -> Any:
    extra = Recipe.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra[key]


def group_of_knob(name: str) -> str:
    """The heading that a knob stands under."""
    group: str = _extra(name, "group")
    return group


def group_of(group: str) -> set[str]:
    """The names of a group's knobs: run, data, augmentation, model, optimization or pre-training."""
    return {name for name in Recipe.model_fields if _extra(name, "group") == group}


def knobs_of(verb: str) -> frozenset[str]:
    """The names of the knobs that "train" or "pretrain" uses."""
    return frozenset(name for name in Recipe.model_fields if _extra(name, "only") in ("", verb))


def idle_of(name: str) -> tuple[Idle, ...]:
    """When a knob does nothing."""
    return tuple(_IDLE[rule] for rule in _extra(name, "idle"))


def with_inferred(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Copy a recipe with values that nobody set, so that `model_fields_set` stays what it is."""
    copied = recipe.model_copy(update=dict(values))
    return Recipe.model_construct(_fields_set=set(recipe.model_fields_set), **dict(copied))
