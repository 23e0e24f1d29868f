"""All knobs, each declared once: name, type, default, unit, help, and MindCV's name for it.

A YAML file, the command line and a Python call all produce one `Recipe`, so all three pass the same
checks (`recipe.read`). A value records what the user asked for. What it implies (the device, the
precision, the number of workers) is decided in the module that needs it: `tasks.masked.task` for
the knobs of pre-training, `training.schedule` for the learning rate, `data.transforms` for images.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from convnextv2.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preset
from convnextv2.recipe.idle import IDLE_RULES, IdleRule
from convnextv2.recipe.pairs import pair_mistakes


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
        default: The value if the user does not set one.
        help: The help text, one or two sentences.
        group: The heading in `--help` that the knob is listed under.
        unit: The unit of its numbers.
        mindcv: MindCV's name for the knob if it differs. That name is accepted everywhere.
        only: The verb that uses the knob, train or pretrain. If empty, both do.
        idle: The conditions under which the knob has no effect, by their names in `IDLE_RULES`.
        **checks: Bounds of its numbers, under pydantic's names (ge, gt, le, lt).

    Returns:
        A pydantic field.
    """
    extra = {"group": group, "unit": unit, "mindcv": mindcv, "only": only, "idle": list(idle)}
    return Field(default, description=help, json_schema_extra=extra, **checks)  # type: ignore[arg-type]


_run = partial(_knob, group="run")
_data = partial(_knob, group="data")
_augment = partial(_knob, group="augmentation")
_model = partial(_knob, group="model")
_optim = partial(_knob, group="optimization")
_distil = partial(_knob, group="distillation")
_dense = partial(_knob, group="dense tasks", only="train")
_pretrain = partial(_knob, group="pre-training", only="pretrain")


class Recipe(BaseModel):
    """A complete description of one run.

    A recipe is frozen. To change one, make a copy: `recipe.model_copy(update=...)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # --- run --------------------------------------------------------------------------------------
    out: str = _run(
        "", "Run folder to write. If empty, it is runs/VERB-MODEL.", mindcv="ckpt_save_dir"
    )
    resume: bool | Literal["auto"] = _run(
        False,
        "Continue the run in `out` from its last checkpoint, up to `epochs`. With auto, a run "
        "that has no checkpoint yet is started, so that one command serves for the first start "
        "and for every later one.",
    )
    resume_allow: tuple[str, ...] | None = _run(
        None,
        "Names of what may differ from the run that is resumed: knobs (such as precision), "
        "images, classes or ranks. Any other difference that changes what is learned is refused.",
    )
    overwrite: bool = _run(False, "Delete the contents of `out` and start again.")
    task: Literal["classification", "segmentation", "detection"] = _run(
        "classification",
        "What is learned: a class or labels for each image (classification), a class for each "
        "pixel (segmentation, docs/how-to/segmentation.md), or boxes and masks of objects "
        "(detection).",
        only="train",
    )
    seed: int = _run(
        42,
        "Seed of all random choices. Each choice follows from the seed and from the position in "
        "the run.",
        ge=0,
        lt=2**31,
    )
    device: str = _run(
        "auto",
        "Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of several).",
        mindcv="device_target",
    )
    distribute: bool | Literal["auto"] = _run(
        "auto",
        "Use the ranks that torchrun, mpirun or SLURM started. With auto, they are used if there "
        "are any.",
    )
    elastic: bool = _run(
        False,
        "Give the same weights bit for bit on any number of ranks. A step then has accumulate x "
        "ranks batches, which must be a power of two, and their gradients are added in a fixed "
        "order.",
    )
    shard: bool = _run(
        False,
        "Share weights, gradients, moments and the moving average among the ranks, so that each "
        "holds only its part (FSDP2). For models that do not fit into the memory of one device; "
        "docs/how-to/sharding.md.",
    )
    rank_timeout_s: int = _run(
        600, "How long to wait for a rank that does not answer before the job ends.", unit="s", ge=1
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _run(
        "auto",
        "Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16 on "
        "older GPUs, otherwise float32.",
        mindcv="amp_level",
    )
    compile: bool = _run(
        False,
        "Compile the training step with torch.compile. This needs a compiler, and the first step "
        "is slow.",
    )
    kernels: Literal["auto", "native", "plain"] = _run(
        "auto",
        "CPU kernels: native (C++, compiled on first use), plain (PyTorch), or auto (native if a "
        "C++ compiler is found).",
    )
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = _run(
        "same",
        "Arithmetic of the evaluation. same: that of `precision`.",
        mindcv="val_amp_level",
        only="train",
    )
    val_while_train: bool = _run(
        True, "Evaluate on the validation images during training.", only="train"
    )
    val_every_epochs: int = _run(
        1,
        "Number of epochs between evaluations. The last epoch is always evaluated.",
        unit="epochs",
        mindcv="val_interval",
        ge=1,
        idle=("no_validation",),
        only="train",
    )
    best_by: Literal["top1", "balanced_accuracy", "macro_f1", "loss"] = _run(
        "top1",
        "Figure of the validation images that decides which weights are best: accuracy (top1), "
        "mean recall over the classes (balanced_accuracy), mean F1 over the classes (macro_f1), "
        "or the lowest loss.",
        idle=("no_validation",),
        only="train",
    )
    patience: int | None = _run(
        None,
        "Stop after this many epochs without a better `best_by`. If empty, all `epochs` are "
        "trained. With a cosine schedule most of the gain comes late, as the learning rate "
        "falls, so a small number stops too early.",
        unit="epochs",
        ge=1,
        idle=("no_validation",),
        only="train",
    )
    save_every_epochs: int = _run(
        1,
        "Number of epochs between checkpoints. The last epoch is always saved.",
        unit="epochs",
        mindcv="ckpt_save_interval",
        ge=1,
    )
    save_every_steps: int | None = _run(
        None, "Also save a checkpoint each time this many steps have passed.", unit="steps", ge=1
    )
    save_every_minutes: float | None = _run(
        None, "Also save a checkpoint when the last one is this old.", unit="min", gt=0
    )
    async_save: bool = _run(
        True,
        "Write checkpoints in the background while training goes on. This takes memory for a "
        "copy of one.",
    )
    bad_steps: Literal["stop", "skip"] = _run(
        "stop",
        "What to do with a step whose loss or gradient is not finite: stop the run, or skip the "
        "step, up to 10 in a row. Its batch is kept in bad_steps/ for `replay`.",
    )
    keep_checkpoints: int = _run(
        2,
        "Number of checkpoints to keep in addition to best/. `keep_policy` chooses them.",
        mindcv="keep_checkpoint_max",
        ge=1,
        idle=("keeps_all",),
    )
    keep_policy: Literal["latest_k", "top_k", "all"] = _run(
        "latest_k",
        "Which checkpoints to keep: latest_k (the newest), top_k (the best by `best_by`, and the "
        "newest), or all.",
        mindcv="ckpt_save_policy",
    )
    mindcv_files: bool = _run(
        False,
        "Also write MindCV's files: result.log, and MindSpore checkpoints under MindCV's names.",
    )
    log_every_steps: int = _run(
        50, "Number of steps between log lines.", unit="steps", mindcv="log_interval", ge=1
    )
    tensorboard: bool = _run(True, "Write TensorBoard events into the run folder.")
    loggers: tuple[str, ...] | None = _run(
        None,
        "Loggers of other projects to write to as well: wandb, mlflow, trackio. They never stop a "
        "run.",
    )

    # --- data -------------------------------------------------------------------------------------
    data_dir: str = _data(
        "",
        "Image folder (with train/ and val/ inside, or with one folder for each class), a table "
        "(CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of "
        "WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a "
        "server (s3://...). hf:OWNER/NAME names a set on the Hugging Face Hub.",
    )
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = (
        _data("", "Named data set to use instead of a folder; 'bundled' comes with the package.")
    )
    dataset_download: bool = _data(
        False, "Allow a named data set to be downloaded.", idle=("is_here",)
    )
    train_split: str = _data("train", "Subfolder with the training images.", idle=("has_splits",))
    val_split: str = _data(
        "val",
        "Subfolder with the validation images.",
        idle=("has_splits", "no_validation"),
        only="train",
    )
    class_order: str = _data(
        "auto",
        "How the rows of foreign weights without class names are matched with the classes of the "
        "data. text: class names sorted as text, as torchvision does. natural: numbers in names "
        "sorted by value, as timm does. number: each folder is named after its row. A file: one "
        "class name on each line, in the order of the rows. auto: decided by the format of the "
        "weights, ImageNet's ids and numbered folders.",
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
        "What separates the names in a table's column of labels, such as '|'; space for a blank. "
        "If empty, it is found.",
        idle=("no_table",),
    )
    images_dir: str = _data(
        "",
        "Folder that the paths in a table are relative to. If empty, it is the folder of the "
        "table.",
        idle=("no_table",),
    )
    image_suffix: str = _data(
        "",
        "Suffix to add to the names in a table that have none, such as .jpg.",
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
        "Use at most this many training images. They are chosen at random, but always in the "
        "same way.",
        unit="images",
        ge=1,
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
    )
    max_image_pixels: int = _data(
        178_956_970, "Size of the largest image that is decoded.", unit="pixels", ge=1
    )
    batch_size: int | Literal["auto"] = _data(
        64,
        "Number of images that a rank processes at once. auto: as many as fit into memory, with "
        "`accumulate` adapted so that the global batch is kept. Only training looks for what "
        "fits; other verbs use their default.",
        unit="images",
    )
    shuffle: bool = _data(True, "Shuffle the training images anew in every epoch.")
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
        "Disk space on this machine for images of tar files that lie on a server. What does not "
        "fit is fetched each time.",
        unit="GB",
        ge=0,
    )
    cache_mb: int = _data(
        0,
        "Memory for decoded training images, shared by the workers of a rank. Images that do not "
        "fit are decoded each time. With a cache, JPEG files are decoded at full resolution.",
        unit="MB",
        ge=0,
    )
    image_size: int | tuple[int, int] = _data(
        224,
        "Side of the square images, or their height and width.",
        unit="px",
        mindcv="image_resize",
    )
    in_channels: int = _data(
        3,
        "Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of bands in "
        "the files (docs/how-to/preprocessing.md).",
        ge=1,
    )
    value_range: tuple[float, float] | None = _data(
        None,
        "For files with more than 8 bits: the values that become black and white, the same for "
        "all channels and images. Values outside are clipped. If empty, "
        "docs/how-to/preprocessing.md says what holds.",
        idle=("has_8_bits",),
    )

    # --- augmentation (training) and preprocessing (evaluation) -----------------------------------
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
    interpolation: Interpolation = _augment(
        "bicubic", "Interpolation with which images are resized."
    )
    antialias: bool | None = _augment(
        None,
        "Average over the source pixels when an image is reduced. If empty, `eval_preset` "
        "decides: all presets do except mindcv.",
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
        "(one, or one for each channel): these normalised values.",
        mindcv="re_value",
        idle=("no_erasing",),
    )
    erase_attempts: int = _augment(
        10,
        "Number of attempts to place the rectangle. If all fail, the image is left as it is.",
        mindcv="re_max_attempts",
        ge=1,
        idle=("no_erasing",),
    )
    mixup: float = _augment(
        0.0, "Alpha of the Beta distribution of mixup. 0: off.", ge=0, only="train"
    )
    cutmix: float = _augment(
        0.0, "Alpha of the Beta distribution of cutmix. 0: off.", ge=0, only="train"
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
        "How often each image occurs in an epoch, augmented anew each time. The epoch keeps its "
        "length. 0: once.",
        ge=0,
    )
    aug_splits: Literal[0, 3] = _augment(
        0,
        "3: each batch holds one clean and two augmented versions of every image (3 x batch_size "
        "images), as the jsd loss requires. 0: off.",
    )
    eval_preset: Preset = _augment(
        "timm", "How evaluation images are prepared (docs/how-to/preprocessing.md)."
    )
    crop_pct: float = _augment(
        0.875,
        "In evaluation, the short side is resized to image_size / crop_pct before the centre crop.",
        gt=0,
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

    # --- model ------------------------------------------------------------------------------------
    model: str = _model(
        "convnextv2_atto",
        "Name of the network: convnextv2_ and atto, femto, pico, nano, tiny, small, base, large, "
        "xlarge or huge; or 'custom', with `depths` and `dims`.",
    )
    depths: tuple[int, int, int, int] | None = _model(
        None, "Number of blocks in each of the four stages, for model: custom."
    )
    dims: tuple[int, int, int, int] | None = _model(
        None, "Number of channels in each of the four stages, for model: custom."
    )
    num_classes: int | None = _model(
        None,
        "Number of classes. If empty, it is the number of classes in the data.",
        ge=1,
        only="train",
    )
    stem_stride: Literal[1, 2, 4] = _model(
        4, "Stride of the stem: 4 for photographs, 2 or 1 for small images."
    )
    block: Literal["v2", "v2_without_grn", "v1"] = _model(
        "v2",
        "Form of the blocks: those of ConvNeXt V2, the same without GRN, or those of the first "
        "ConvNeXt, with a layer scale and without GRN. The last two are for comparison.",
    )
    gelu: Literal["exact", "tanh"] = _model(
        "exact", "Form of GELU. Weights from MindCV need 'tanh'."
    )
    grn_scope: Literal["image", "batch"] = _model(
        "image",
        "What the statistics of GRN are computed over: each image, or the whole batch, as in the "
        "official sparse code.",
        idle=("no_grn",),
    )
    norm_eps: float = _model(
        1e-6, "Epsilon of the final norm. Checkpoints of Transformers have 1e-12.", gt=0
    )
    inner_eps: float = _model(
        1e-6, "Epsilon of all norms but the final one. convnext_xxlarge of timm has 1e-5.", gt=0
    )
    drop_path_rate: float = _model(
        0.0,
        "Stochastic depth rate of the last block. The rate grows linearly from 0 at the first "
        "block.",
        ge=0,
        lt=1,
    )
    head_init_scale: float = _model(
        1.0,
        "Factor on the initial weights of the head. Use 0.001 for fine-tuning.",
        ge=0,
        only="train",
    )
    grad_checkpoint: bool = _model(
        False, "Recompute activations in the backward pass, which takes less memory and more time."
    )
    init: str = _model(
        "",
        "Weights to start from: a run folder, a weights file of any known format, OWNER/NAME on "
        "the Hugging Face Hub, or a name that `models --weights` lists. 'pretrained' takes public "
        "weights of the model's size whose licence allows commercial use.",
        mindcv="ckpt_path",
    )
    resume_init: bool = _model(
        False,
        "Continue at the epoch that is recorded in the MindSpore checkpoint in `init` (MindCV's "
        "ckpt_path) instead of at epoch 0.",
        idle=("no_checkpoint",),
    )
    resume_opt: bool = _model(
        False,
        "Also load the state of the optimizer from the MindSpore checkpoint in `init`.",
        idle=("no_checkpoint",),
    )
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = _model(
        "none",
        "What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or "
        "everything except the final norm and the head (encoder).",
        only="train",
    )
    freeze_grn: bool = _model(
        False,
        "Do not train GRN. A start from a ConvNeXt of the first version then stays one, and "
        "`convert` can write it as one.",
        only="train",
    )

    # --- optimization -----------------------------------------------------------------------------
    epochs: int = _optim(
        100,
        "Number of passes over the training images.",
        unit="epochs",
        mindcv="epoch_size",
        ge=1,
        idle=("has_time",),
    )
    time: str = _optim(
        "",
        "Time for the whole run, such as 30m, 1h30m or 2d, in place of `epochs`. A number alone "
        "means minutes. The first epoch "
        "warms the learning rate up and is measured; the learning rate then falls along a cosine "
        "over as many epochs as fit.",
    )
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"
    ] = _optim(
        "adamw", "Optimizer to use. lion, lamb and adan need the extra [optimizers].", mindcv="opt"
    )
    lr: float = _optim(
        1e-3, "Peak learning rate, for a global batch of `lr_batch_size` images.", ge=0
    )
    lr_batch_size: int | None = _optim(
        None,
        "Global batch for which `lr` is stated. If empty, `lr` is for whatever batch is used.",
        unit="images",
        ge=1,
    )
    scale_lr: bool = _optim(False, "Multiply `lr` and `min_lr` by global batch / lr_batch_size.")
    min_lr: float = _optim(
        1e-6,
        "Lowest learning rate of the cosine, one_cycle and cyclic schedules.",
        ge=0,
        idle=("no_floor",),
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
    ] = _optim(
        "cosine", "Shape of the learning rate schedule after the warm-up.", mindcv="scheduler"
    )
    warmup_epochs: float = _optim(
        0.0,
        "Length of the linear warm-up at the start. It counts as part of `epochs`.",
        unit="epochs",
        ge=0,
        idle=("has_time",),
    )
    warmup_factor: float = _optim(
        0.0, "Share of `lr` at the first step of the warm-up.", ge=0, le=1, idle=("no_warmup",)
    )
    decay_epochs: int | None = _optim(
        None,
        "Length of a cosine, or period of the step schedule. If empty, it is all epochs after "
        "the warm-up.",
        unit="epochs",
        ge=1,
        idle=("no_length", "has_time"),
    )
    decay_rate: float = _optim(
        0.9,
        "Factor of the exponential, step and multi_step schedules; power of the polynomial "
        "schedule.",
        gt=0,
        idle=("no_rate",),
    )
    decay_milestones: tuple[int, ...] = _optim(
        (30, 60, 90),
        "Epochs after the warm-up at which multi_step lowers the learning rate.",
        mindcv="multi_step_decay_milestones",
        idle=("no_milestones",),
    )
    lr_epoch_stair: bool = _optim(False, "Keep the learning rate constant within an epoch.")
    num_cycles: int = _optim(
        1,
        "Number of cosines, one after another, or of periods of the cyclic schedule.",
        ge=1,
        idle=("no_cycles",),
    )
    cycle_decay: float = _optim(
        1.0,
        "Factor on the peak learning rate from one cosine to the next.",
        gt=0,
        idle=("no_cycle_decay",),
    )
    betas: tuple[float, float] | None = _optim(
        None,
        "Decay rates of the optimizer's moving averages. If empty, they are the optimizer's own: "
        "(0.9, 0.999) for adamw, adam, nadam and lamb.",
        idle=("no_betas",),
    )
    eps: float = _optim(1e-8, "Epsilon of the adaptive optimizers.", gt=0, idle=("no_eps",))
    momentum: float = _optim(0.9, "Momentum of sgd and rmsprop.", ge=0, lt=1, idle=("no_momentum",))
    nesterov: bool = _optim(False, "Use Nesterov momentum with sgd.", mindcv="use_nesterov")
    weight_decay: float = _optim(
        0.05,
        "Weight decay. It is decoupled in adamw, lion, lamb and adan, and added to the gradient "
        "in the other optimizers.",
        ge=0,
    )
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = _optim(
        "norm_and_bias",
        "What is exempt from weight decay: norms, biases, GRN and the mask token "
        "(norm_and_bias), only norms and GRN (auto), or nothing (disable).",
    )
    layer_decay: float | None = _optim(
        None,
        "Factor on the learning rate from each layer to the one below it, from the head (1) down "
        "to the stem.",
        gt=0,
        le=1,
        only="train",
    )
    layer_decay_form: Literal["single", "group", "stage"] = _optim(
        "single",
        "What counts as a layer: one block (single), a group of blocks (group, which the paper "
        "uses for base and large), or a stage (stage, which the official segmentation code uses).",
        idle=("no_layer_decay",),
        only="train",
    )
    clip_norm: float | None = _optim(
        None, "Maximum of the gradient's global norm. A larger gradient is scaled down to it.", gt=0
    )
    loss_scale: float = _optim(
        65536.0,
        "Factor on the loss in float16 at the start. It is halved on overflow and doubled after "
        "2000 steps without one.",
        ge=1,
        idle=("no_scale",),
    )
    global_batch: int | None = _optim(
        None,
        "Number of images in one step, over all ranks. `accumulate` follows from it; with "
        "batch_size auto, both are chosen so as to keep it. If empty, it is batch_size x "
        "accumulate x ranks.",
        unit="images",
        ge=1,
    )
    accumulate: int = _optim(
        1,
        "Number of batches whose gradients make up one step.",
        mindcv="gradient_accumulation_steps",
        ge=1,
    )
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = _optim(
        "ce",
        "Loss function: cross entropy over a softmax (ce), binary cross entropy (bce), "
        "asymmetric loss (asl_single_label, asl_multi_label), or Jensen-Shannon divergence (jsd, "
        "with aug_splits 3). With several labels per image, it is bce or asl_multi_label.",
        only="train",
    )
    pos_weight: Literal["none", "balanced"] = _optim(
        "none",
        "With several labels per image: the weight of a class in the loss of images that have it. "
        "balanced: images without it / images with it, at most 10.",
        only="train",
        idle=("no_positives",),
    )
    loss_reduction: Literal["mean", "sum"] = _optim(
        "mean",
        "Whether ce and bce take the mean or the sum over the batch.",
        mindcv="reduction",
        only="train",
    )
    class_weights: Literal["none", "balanced", "effective"] | dict[str, float] = _optim(
        "none",
        "Weight of an image in the loss, by its class: in inverse proportion to the number of "
        "training images (balanced), to their effective number (effective, with "
        "`class_weights_beta`), or as in a table (other classes have 1). The weights are scaled "
        "to a mean of 1 over the images.",
        only="train",
    )
    class_weights_beta: float = _optim(
        0.999,
        "beta of the effective number of n images, (1 - beta^n) / (1 - beta). Near 0, all "
        "weights are equal; near 1, they are balanced.",
        gt=0,
        lt=1,
        idle=("no_effective",),
        only="train",
    )
    sampling: Literal["natural", "balanced", "sqrt"] | float = _optim(
        "natural",
        "How often the images of a class are drawn. natural: each image once in an epoch. "
        "balanced: every class equally often. sqrt: in proportion to the square root of the "
        "number of its images. A number from 0 to 1: to this power of it. An epoch keeps its "
        "length.",
        only="train",
    )
    logit_adjustment: float = _optim(
        0.0,
        "tau: the loss adds tau times the logarithm of the class frequencies to the logits, so "
        "that the network itself need not prefer frequent classes. 1 makes up for all of it. 0: "
        "off.",
        ge=0,
        only="train",
    )
    label_smoothing: float = _optim(
        0.0,
        "Share of the target that is spread evenly over all classes.",
        ge=0,
        lt=1,
        idle=("no_smoothing",),
        only="train",
    )
    ema: bool = _optim(
        False, "Keep an exponential moving average of the weights, and evaluate that average."
    )
    ema_decay: float = _optim(
        0.9999, "Decay of the moving average at each step.", ge=0, lt=1, idle=("no_ema",)
    )
    ema_form: Literal["warmup", "mindcv", "constant"] = _optim(
        "warmup",
        "Decay of the moving average after t steps. warmup: min(decay, (1 + t) / (10 + t)). "
        "mindcv: decay * (1 - exp(-t / 2000)). constant: decay.",
        idle=("no_ema",),
    )

    # --- distillation -----------------------------------------------------------------------------
    teacher: str = _distil(
        "",
        "Model to learn from: a run folder, a weights file of any known format, OWNER/NAME on the "
        "Hugging Face Hub, a name that `models --weights` lists, or an exported "
        "artifact. It sees the same crops and mixtures as the model that learns "
        "(docs/how-to/distil.md).",
    )
    distill: Literal["auto", "soft", "features", "both"] = _distil(
        "auto",
        "What to learn from the teacher: its soft labels, which needs a teacher of the same "
        "classes; its pooled features, through a linear layer that is not part of the result; or "
        "both. auto: soft if the teacher names the classes of the data, otherwise features.",
        only="train",
        idle=("no_teacher",),
    )
    distill_weight: float = _distil(
        1.0, "Weight of what the teacher says in the loss.", gt=0, idle=("no_teacher",)
    )
    distill_temperature: float = _distil(
        4.0,
        "Number by which all logits are divided before teacher and student are compared.",
        gt=0,
        only="train",
        idle=("no_teacher", "no_soft_labels"),
    )
    task_weight: float | None = _distil(
        None,
        "Weight of the loss without the teacher. If empty, it is 0 with soft labels (labels do "
        "not count then, as in Beyer et al. 2022), and otherwise 1.",
        ge=0,
        idle=("no_teacher",),
    )
    unlabelled: str = _distil(
        "",
        "Folder of further training images. Labels are not read; the teacher alone says what is "
        "learned from them.",
        only="train",
    )

    # --- dense tasks: segmentation and detection --------------------------------------------------
    classes: str = _dense(
        "",
        "Table of the classes in label maps: CSV, text or JSON with an id, a name, and perhaps a "
        "colour each. If empty, one that lies in data_dir under a usual name is used, such as "
        "classes.csv.",
        idle=("no_maps",),
    )
    ignore_values: tuple[int, ...] | None = _dense(
        None,
        "Values in label maps that stand for no class: they teach nothing and are not measured. "
        "If empty, it is 255, unless that is a class.",
        idle=("no_maps",),
    )
    reduce_zero_label: bool = _dense(
        False,
        "Ignore 0 in label maps, so that the first class is 1, as in ADE20K.",
        idle=("no_maps",),
    )
    scale_jitter: tuple[float, float] = _dense(
        (0.5, 2.0),
        "Random factor on the size of an image, minimum and maximum. At 1, an image covers "
        "`image_size` (segmentation) or lies inside it (detection).",
        idle=("not_dense",),
    )
    max_class_share: float = _dense(
        0.75,
        "Crops of which one class fills a larger share are drawn again, up to ten times. 1: no "
        "limit.",
        gt=0,
        le=1,
        idle=("no_maps",),
    )
    photometric: float = _dense(
        0.0,
        "Probability of each of four changes of colours: brightness, contrast, saturation and hue "
        "(0.5 in the official segmentation recipes).",
        ge=0,
        le=1,
        idle=("not_dense",),
    )
    head_channels: int = _dense(
        512, "Number of channels in the head of a segmentor.", ge=4, idle=("no_maps",)
    )
    head_norm: Literal["batch", "group"] = _dense(
        "batch",
        "Norm in the head of a segmentor: over the batch (batch; on several CUDA ranks, over the "
        "batches of all), or over each image (group), which suits batches of one to four images.",
        idle=("no_maps",),
    )
    auxiliary_weight: float = _dense(
        0.4,
        "Weight of the loss of an auxiliary head, which a segmentor has in training only. 0: no "
        "such head.",
        ge=0,
        idle=("no_maps",),
    )
    slide: bool = _dense(
        False,
        "Evaluate a segmentor on overlapping windows of `image_size`, which move by two thirds of "
        "it, instead of on whole images.",
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
        "COCO, YOLO and Pascal VOC that is there.",
        idle=("no_objects",),
    )
    masks: Literal["auto", "on", "off"] = _dense(
        "auto",
        "Whether a detector learns masks. auto: if the objects have some.",
        idle=("no_objects",),
    )
    fpn_channels: int = _dense(
        256,
        "Number of channels in the feature pyramid and the mask head of a detector.",
        ge=1,
        idle=("no_objects",),
    )
    finest_stride: Literal[4, 8] = _dense(
        4,
        "Stride of the finest level on which a detector looks for objects. 8 takes a fraction of "
        "the time, and misses objects of few pixels.",
        unit="px",
        idle=("no_objects",),
    )
    anchor_scale: float = _dense(
        8.0,
        "Side of a detector's anchors, over the stride of their level.",
        gt=0,
        idle=("no_objects",),
    )
    box_dim: int = _dense(
        1024, "Width of the two layers of a detector's box head.", ge=1, idle=("no_objects",)
    )
    proposals: int = _dense(
        1000,
        "Number of regions in an image that a detector looks at more closely.",
        ge=1,
        idle=("no_objects",),
    )
    rois: int = _dense(
        512,
        "Number of regions in an image that the heads of a detector are trained on.",
        ge=4,
        idle=("no_objects",),
    )
    max_detections: int = _dense(
        100, "The most objects that a detector finds in an image.", ge=1, idle=("no_objects",)
    )
    soft_nms: bool = _dense(
        False,
        "Lower the scores of objects that overlap with better ones of their class (linear "
        "soft-NMS), instead of dropping them.",
        idle=("no_objects",),
    )

    # --- pre-training (FCMAE) ---------------------------------------------------------------------
    mask_ratio: float = _pretrain(0.6, "Share of the tiles that is hidden.", gt=0, lt=1)
    tile: int | None = _pretrain(
        None, "Side of a tile. If empty, it is the total stride (8 x stem_stride).", unit="px", ge=1
    )
    norm_target: bool = _pretrain(
        True, "Normalise the pixels of each masked tile before the loss compares them."
    )
    decoder_dim: int = _pretrain(512, "Number of channels in the decoder.", ge=1)
    decoder_depth: int = _pretrain(1, "Number of blocks in the decoder.", ge=1)
    health_every_epochs: int | None = _pretrain(
        None,
        "Number of epochs between examinations of the features and gradients on a fixed set of "
        "images, which the report shows. The first and the last epoch are always examined then. "
        "Empty: never.",
        unit="epochs",
        ge=1,
    )
    probe_every_epochs: int | None = _pretrain(
        None,
        "Number of epochs between probes of the frozen features, by nearest neighbours and a "
        "linear layer. The images need labels for that. The first and the last epoch are always "
        "probed then. Empty: never.",
        unit="epochs",
        ge=1,
    )
    probe_dir: str = _pretrain(
        "",
        "Labelled images for `probe_every_epochs`: a folder or a table. If empty, those of the "
        "run.",
        idle=("no_probe",),
    )

    def images_per_batch(self, default: int = 64) -> int:
        """Return `batch_size` as a number.

        Args:
            default: The number that "auto" stands for if the verb does not search for a batch size.
        """
        return default if self.batch_size == "auto" else self.batch_size

    @property
    def evaluation_precision(self) -> str:
        """The precision of the evaluation, which `val_precision` may leave to `precision`."""
        return self.precision if self.val_precision == "same" else self.val_precision

    @model_validator(mode="after")
    def _check_pairs(self) -> Recipe:
        """Check the knobs that depend on each other."""
        if mistakes := list(pair_mistakes(self)):
            raise ValueError("\n".join(mistakes))
        return self


def default_of(name: str) -> Any:
    """Return the default of a knob."""
    return Recipe.model_fields[name].default


def _extra(name: str, key: str) -> Any:
    extra = Recipe.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra[key]


def group_of_knob(name: str) -> str:
    """Return the group that a knob belongs to."""
    group: str = _extra(name, "group")
    return group


def group_of(group: str) -> set[str]:
    """Return the names of the knobs in a group.

    Args:
        group: run, data, augmentation, model, optimization, distillation, dense tasks or
            pre-training.
    """
    return {name for name in Recipe.model_fields if _extra(name, "group") == group}


def knobs_of(verb: str) -> frozenset[str]:
    """Return the names of the knobs that a verb, "train" or "pretrain", uses."""
    return frozenset(name for name in Recipe.model_fields if _extra(name, "only") in ("", verb))


def idle_of(name: str) -> tuple[IdleRule, ...]:
    """Return the conditions under which a knob has no effect."""
    return tuple(IDLE_RULES[rule] for rule in _extra(name, "idle"))


def with_inferred(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Copy a recipe with values that the user did not set, and keep `model_fields_set` as it is."""
    copied = recipe.model_copy(update=dict(values))
    return Recipe.model_construct(_fields_set=set(recipe.model_fields_set), **dict(copied))
