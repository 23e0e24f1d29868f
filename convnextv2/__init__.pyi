"""What the public face takes and returns. Made by scripts/write_stub.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convnextv2.inference.predictor import Predictor as Predictor
from convnextv2.errors import ConvNeXtV2Error as ConvNeXtV2Error
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.model.convnext import ConvNeXtV2 as ConvNeXtV2
from convnextv2.model.convnext import create_model as create_model
from convnextv2.model.fcmae import FCMAE as FCMAE
from convnextv2.run import Run
from convnextv2.verbs.replay import Replayed
from convnextv2.weights.opened import Weights

__version__: str
__all__: list[str]

def pretrain(
    config: str | Path | None = None,
    *,
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    save_every_epochs: int = 1,
    save_every_steps: int | None = None,
    save_every_minutes: float | None = None,
    async_save: bool = True,
    bad_steps: Literal["stop", "skip"] = "stop",
    keep_checkpoints: int = 2,
    keep_policy: Literal["latest_k", "top_k", "all"] = "latest_k",
    mindcv_files: bool = False,
    log_every_steps: int = 50,
    tensorboard: bool = True,
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    num_samples: int | None = None,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    shuffle: bool = True,
    drop_last: bool = True,
    workers: int | Literal["auto"] = "auto",
    cache_mb: int = 0,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    value_range: tuple[float, float] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),
    crop_padding: int = 0,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.0,
    auto_augment: str | Path | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bicubic",
    antialias: bool | None = None,
    erase_scale: tuple[float, float] = (0.02, 0.3333333333333333),
    erase_ratio: tuple[float, float] = (0.3, 3.3),
    erase_value: Literal["random"] | float | tuple[float, ...] = "random",
    erase_attempts: int = 10,
    aug_repeats: int = 0,
    aug_splits: Literal[0, 3] = 0,
    eval_preset: Literal["timm", "official", "mindcv"] = "timm",
    crop_pct: float = 0.875,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    model: str | Path = "convnextv2_atto",
    depths: tuple[int, int, int, int] | None = None,
    dims: tuple[int, int, int, int] | None = None,
    stem_stride: Literal[1, 2, 4] = 4,
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    epochs: int = 100,
    optimizer: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal["cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle", "cyclic"] = "cosine",
    warmup_epochs: float = 0.0,
    warmup_factor: float = 0.0,
    decay_epochs: int | None = None,
    decay_rate: float = 0.9,
    decay_milestones: tuple[int, ...] = (30, 60, 90),
    lr_epoch_stair: bool = False,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-08,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.05,
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = "norm_and_bias",
    clip_norm: float | None = None,
    loss_scale: float = 65536.0,
    global_batch: int | None = None,
    accumulate: int = 1,
    ema: bool = False,
    ema_decay: float = 0.9999,
    ema_form: Literal["warmup", "mindcv", "constant"] = "warmup",
    mask_ratio: float = 0.6,
    tile: int | None = None,
    norm_target: bool = True,
    decoder_dim: int = 512,
    decoder_depth: int = 1,
) -> Run:
    """Pre-train an encoder on images without labels, for `train(init=...)`.

    Args:
        config: YAML file, or a name that `convnextv2 recipes` lists.
        out: Run folder to write. Empty: runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`; auto: start it where it has none, so that one command serves for the first start and for every later one.
        resume_allow: What may differ from the run that is resumed, by name: knobs, images, classes, precision, ranks. Anything else that changes what is learned is refused.
        overwrite: Delete what is in `out` and start anew.
        seed: Every random choice follows from it and from the position in the run.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        distribute: Use the ranks that torchrun, mpirun or SLURM started.
        elastic: Give the same weights bit for bit on any number of ranks: a step has accumulate x ranks batches, a power of two, whose gradients are added in a fixed order.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        compile: torch.compile the step (needs a compiler; slow first step).
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        save_every_epochs: Save a checkpoint every so many epochs (and after the last).
        save_every_steps: Save one every so many steps, too.
        save_every_minutes: Save one when the last is so many minutes old, too.
        async_save: Write checkpoints while training goes on; takes memory for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite; its batch is kept in bad_steps/ for `replay`. skip leaves the step out, up to 10 in a row.
        keep_checkpoints: How many checkpoints to keep beside best/, by `keep_policy`.
        keep_policy: Which: the newest, those with the best top-1 (and the newest), or all.
        mindcv_files: Write MindCV's files too: result.log and MindSpore checkpoints by MindCV's names.
        log_every_steps: Steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        num_samples: Use at most this many training images (a fixed random choice).
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        data_wait_s: How long images are waited for when their file server or folder is away; 0: not at all.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Leave out the last, smaller batch of an epoch in training.
        workers: Processes that decode and augment; 0: none beside the main one.
        cache_mb: Memory for decoded training images, shared by the workers of a rank; what does not fit is decoded each time. With it, JPEGs are decoded whole.
        image_size: Side of the images, or height and width.
        in_channels: Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files have (docs/how-to/preprocessing.md).
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.
        scale: Share of the image's area that a random crop keeps: least, most.
        ratio: Width/height of a random crop: least, most.
        crop_padding: Pad with black by so many pixels and crop back at a random place, in place of the random resized crop; 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random brightness, contrast, saturation (and, as 4th number, hue). Not used with `auto_augment`.
        auto_augment: Policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: How images are resized.
        antialias: Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).
        erase_scale: Share of the image's area that is erased: least, most.
        erase_ratio: Aspect ratio of the erased rectangle: least, most.
        erase_value: What fills it: 'random' is noise from N(0, 1) per pixel; numbers (one, or one for each channel) are normalised values.
        erase_attempts: Tries to place the rectangle; failing that, the image stays whole.
        aug_repeats: How often each image occurs in an epoch, each time augmented anew (an epoch keeps its length); 0: once.
        aug_splits: 3: each batch holds every image clean and twice augmented (3 x batch_size), as the jsd loss needs it.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: Evaluation: image_size / crop_pct is the short side before the centre crop.
        mean: Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).
        std: Channel standard deviations, on the scale of `mean`.
        model: convnextv2_ atto, femto, pico, nano, tiny, base, large or huge, or 'custom'.
        depths: Blocks per stage, for model: custom.
        dims: Channels per stage, for model: custom.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        gelu: Form of GELU; MindCV's weights want 'tanh'.
        grn_scope: What GRN's statistics are taken over; 'batch' matches the official sparse code.
        norm_eps: Epsilon of the final norm; transformers' checkpoints have 1e-12.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        grad_checkpoint: Recompute activations in the backward pass: less memory, more time.
        init: Weights to start from: a run folder, a weights file of any known format, or OWNER/NAME on the Hugging Face Hub.
        resume_init: Continue at the epoch that a MindSpore checkpoint in `init` states (MindCV's ckpt_path), not at 0.
        resume_opt: Take the optimizer's state too from the MindSpore checkpoint in `init`.
        epochs: Passes over the training images.
        optimizer: Update rule; lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size`.
        lr_batch_size: Global batch for which `lr` is stated; empty: for whatever batch is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Learning rate at the end of the cosine.
        schedule: Course of the learning rate after the warm-up.
        warmup_epochs: Linear warm-up at the start, counted in `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or the period of step; empty: all epochs after the warm-up.
        decay_rate: Factor of exponential, step and multi_step; power of polynomial.
        decay_milestones: Epochs after the warm-up at which multi_step decays.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Cosines one after the other, or periods of cyclic.
        cycle_decay: Factor on the peak from one cosine to the next.
        betas: Averaging factors; empty: the optimizer's own ((0.9, 0.999) for adamw, adam, nadam and lamb).
        eps: Epsilon of adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Nesterov's form of sgd's momentum.
        weight_decay: Weight decay; decoupled in adamw, lion, lamb and adan, added to the gradient elsewhere.
        weight_decay_filter: Spared from weight decay: norms, biases, GRN and the mask token; nothing (disable); or norms and GRN only (auto).
        clip_norm: Clip the gradient's global norm.
        loss_scale: In float16: factor on the loss at the start; halved on overflow, doubled after 2000 good steps.
        global_batch: Images in one step, over all ranks; `accumulate` follows from it, and with batch_size auto both are chosen to keep it. Empty: batch_size x accumulate x ranks.
        accumulate: Batches whose gradients make one step.
        ema: Keep a moving average of the weights, and evaluate that.
        ema_decay: Its decay per step.
        ema_form: Decay after t steps: min(decay, (1 + t) / (10 + t)); decay * (1 - exp(-t / 2000)) (mindcv); decay (constant).
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile; empty: the total stride (8 x stem_stride).
        norm_target: Normalise the pixels of each masked tile before they are compared.
        decoder_dim: Channels of the decoder.
        decoder_depth: Blocks of the decoder.

    Returns:
        The run.
    """

def train(
    config: str | Path | None = None,
    *,
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    val_while_train: bool = True,
    val_every_epochs: int = 1,
    save_every_epochs: int = 1,
    save_every_steps: int | None = None,
    save_every_minutes: float | None = None,
    async_save: bool = True,
    bad_steps: Literal["stop", "skip"] = "stop",
    keep_checkpoints: int = 2,
    keep_policy: Literal["latest_k", "top_k", "all"] = "latest_k",
    mindcv_files: bool = False,
    log_every_steps: int = 50,
    tensorboard: bool = True,
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    num_samples: int | None = None,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    shuffle: bool = True,
    drop_last: bool = True,
    workers: int | Literal["auto"] = "auto",
    cache_mb: int = 0,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    value_range: tuple[float, float] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),
    crop_padding: int = 0,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.0,
    auto_augment: str | Path | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bicubic",
    antialias: bool | None = None,
    erase_prob: float = 0.0,
    erase_scale: tuple[float, float] = (0.02, 0.3333333333333333),
    erase_ratio: tuple[float, float] = (0.3, 3.3),
    erase_value: Literal["random"] | float | tuple[float, ...] = "random",
    erase_attempts: int = 10,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    mix_prob: float = 1.0,
    mix_switch_prob: float = 0.5,
    aug_repeats: int = 0,
    aug_splits: Literal[0, 3] = 0,
    eval_preset: Literal["timm", "official", "mindcv"] = "timm",
    crop_pct: float = 0.875,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    model: str | Path = "convnextv2_atto",
    depths: tuple[int, int, int, int] | None = None,
    dims: tuple[int, int, int, int] | None = None,
    num_classes: int | None = None,
    stem_stride: Literal[1, 2, 4] = 4,
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    head_init_scale: float = 1.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = "none",
    epochs: int = 100,
    optimizer: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal["cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle", "cyclic"] = "cosine",
    warmup_epochs: float = 0.0,
    warmup_factor: float = 0.0,
    decay_epochs: int | None = None,
    decay_rate: float = 0.9,
    decay_milestones: tuple[int, ...] = (30, 60, 90),
    lr_epoch_stair: bool = False,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-08,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.05,
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = "norm_and_bias",
    layer_decay: float | None = None,
    layer_decay_form: Literal["single", "group"] = "single",
    clip_norm: float | None = None,
    loss_scale: float = 65536.0,
    global_batch: int | None = None,
    accumulate: int = 1,
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = "ce",
    loss_reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
    ema: bool = False,
    ema_decay: float = 0.9999,
    ema_form: Literal["warmup", "mindcv", "constant"] = "warmup",
) -> Run:
    """Train or fine-tune a classifier on labelled images, and write its run folder with a report.

    Args:
        config: YAML file, or a name that `convnextv2 recipes` lists.
        out: Run folder to write. Empty: runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`; auto: start it where it has none, so that one command serves for the first start and for every later one.
        resume_allow: What may differ from the run that is resumed, by name: knobs, images, classes, precision, ranks. Anything else that changes what is learned is refused.
        overwrite: Delete what is in `out` and start anew.
        seed: Every random choice follows from it and from the position in the run.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        distribute: Use the ranks that torchrun, mpirun or SLURM started.
        elastic: Give the same weights bit for bit on any number of ranks: a step has accumulate x ranks batches, a power of two, whose gradients are added in a fixed order.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        compile: torch.compile the step (needs a compiler; slow first step).
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        val_precision: Arithmetic of `validate`; same: that of `precision`.
        val_while_train: Evaluate on the validation images during training.
        val_every_epochs: Evaluate every so many epochs (and after the last).
        save_every_epochs: Save a checkpoint every so many epochs (and after the last).
        save_every_steps: Save one every so many steps, too.
        save_every_minutes: Save one when the last is so many minutes old, too.
        async_save: Write checkpoints while training goes on; takes memory for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite; its batch is kept in bad_steps/ for `replay`. skip leaves the step out, up to 10 in a row.
        keep_checkpoints: How many checkpoints to keep beside best/, by `keep_policy`.
        keep_policy: Which: the newest, those with the best top-1 (and the newest), or all.
        mindcv_files: Write MindCV's files too: result.log and MindSpore checkpoints by MindCV's names.
        log_every_steps: Steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        val_split: Sub-folder with the validation images.
        class_order: How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        val_fraction: Share of the images held out for validation where the folder has no split.
        num_samples: Use at most this many training images (a fixed random choice).
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        data_wait_s: How long images are waited for when their file server or folder is away; 0: not at all.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Leave out the last, smaller batch of an epoch in training.
        workers: Processes that decode and augment; 0: none beside the main one.
        cache_mb: Memory for decoded training images, shared by the workers of a rank; what does not fit is decoded each time. With it, JPEGs are decoded whole.
        image_size: Side of the images, or height and width.
        in_channels: Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files have (docs/how-to/preprocessing.md).
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.
        scale: Share of the image's area that a random crop keeps: least, most.
        ratio: Width/height of a random crop: least, most.
        crop_padding: Pad with black by so many pixels and crop back at a random place, in place of the random resized crop; 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random brightness, contrast, saturation (and, as 4th number, hue). Not used with `auto_augment`.
        auto_augment: Policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: How images are resized.
        antialias: Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: least, most.
        erase_ratio: Aspect ratio of the erased rectangle: least, most.
        erase_value: What fills it: 'random' is noise from N(0, 1) per pixel; numbers (one, or one for each channel) are normalised values.
        erase_attempts: Tries to place the rectangle; failing that, the image stays whole.
        mixup: Alpha of mixup's Beta distribution; 0: off.
        cutmix: Alpha of cutmix's Beta distribution; 0: off.
        mix_prob: Probability that a batch is mixed at all.
        mix_switch_prob: Probability of cutmix where both are on.
        aug_repeats: How often each image occurs in an epoch, each time augmented anew (an epoch keeps its length); 0: once.
        aug_splits: 3: each batch holds every image clean and twice augmented (3 x batch_size), as the jsd loss needs it.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: Evaluation: image_size / crop_pct is the short side before the centre crop.
        mean: Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).
        std: Channel standard deviations, on the scale of `mean`.
        model: convnextv2_ atto, femto, pico, nano, tiny, base, large or huge, or 'custom'.
        depths: Blocks per stage, for model: custom.
        dims: Channels per stage, for model: custom.
        num_classes: Number of classes; empty: as many as the data have.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        gelu: Form of GELU; MindCV's weights want 'tanh'.
        grn_scope: What GRN's statistics are taken over; 'batch' matches the official sparse code.
        norm_eps: Epsilon of the final norm; transformers' checkpoints have 1e-12.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        head_init_scale: Factor on the head's initial weights; 0.001 when fine-tuning.
        grad_checkpoint: Recompute activations in the backward pass: less memory, more time.
        init: Weights to start from: a run folder, a weights file of any known format, or OWNER/NAME on the Hugging Face Hub.
        resume_init: Continue at the epoch that a MindSpore checkpoint in `init` states (MindCV's ckpt_path), not at 0.
        resume_opt: Take the optimizer's state too from the MindSpore checkpoint in `init`.
        freeze: What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or all but norm and head.
        epochs: Passes over the training images.
        optimizer: Update rule; lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size`.
        lr_batch_size: Global batch for which `lr` is stated; empty: for whatever batch is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Learning rate at the end of the cosine.
        schedule: Course of the learning rate after the warm-up.
        warmup_epochs: Linear warm-up at the start, counted in `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or the period of step; empty: all epochs after the warm-up.
        decay_rate: Factor of exponential, step and multi_step; power of polynomial.
        decay_milestones: Epochs after the warm-up at which multi_step decays.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Cosines one after the other, or periods of cyclic.
        cycle_decay: Factor on the peak from one cosine to the next.
        betas: Averaging factors; empty: the optimizer's own ((0.9, 0.999) for adamw, adam, nadam and lamb).
        eps: Epsilon of adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Nesterov's form of sgd's momentum.
        weight_decay: Weight decay; decoupled in adamw, lion, lamb and adan, added to the gradient elsewhere.
        weight_decay_filter: Spared from weight decay: norms, biases, GRN and the mask token; nothing (disable); or norms and GRN only (auto).
        layer_decay: Learning-rate factor per layer, from the head (1) down to the stem.
        layer_decay_form: A layer is one block, or a group of blocks (base and large in the paper).
        clip_norm: Clip the gradient's global norm.
        loss_scale: In float16: factor on the loss at the start; halved on overflow, doubled after 2000 good steps.
        global_batch: Images in one step, over all ranks; `accumulate` follows from it, and with batch_size auto both are chosen to keep it. Empty: batch_size x accumulate x ranks.
        accumulate: Batches whose gradients make one step.
        loss: Softmax or binary cross entropy, asymmetric loss, or Jensen-Shannon divergence (with aug_splits 3).
        loss_reduction: Mean or sum over the batch (ce and bce).
        label_smoothing: Share of the target that is spread over all classes.
        ema: Keep a moving average of the weights, and evaluate that.
        ema_decay: Its decay per step.
        ema_form: Decay after t steps: min(decay, (1 + t) / (10 + t)); decay * (1 - exp(-t / 2000)) (mindcv); decay (constant).

    Returns:
        The run.
    """

def validate(
    run: str | Path | None = None,
    *,
    config: str | Path | None = None,
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    mindcv_files: bool = False,
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    value_range: tuple[float, float] | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bicubic",
    antialias: bool | None = None,
    eval_preset: Literal["timm", "official", "mindcv"] = "timm",
    crop_pct: float = 0.875,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    model: str | Path = "convnextv2_atto",
    depths: tuple[int, int, int, int] | None = None,
    dims: tuple[int, int, int, int] | None = None,
    num_classes: int | None = None,
    init: str | Path = "",
    ema: bool = False,
) -> Evaluation:
    """Evaluate a classifier on labelled images, print a table and write a report.

    A run brings its recipe: its data and how they are prepared. An artifact prepares images in its
    own way, and brings the data of the run that it lies in. Knobs, such as data_dir, replace parts
    of it. Every image is counted exactly once, on any number of ranks.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        config: YAML file, or a name that `convnextv2 recipes` lists.
        seed: Every random choice follows from it and from the position in the run.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        distribute: Use the ranks that torchrun, mpirun or SLURM started.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        val_precision: Arithmetic of `validate`; same: that of `precision`.
        mindcv_files: Write MindCV's files too: result.log and MindSpore checkpoints by MindCV's names.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        val_split: Sub-folder with the validation images.
        class_order: How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        val_fraction: Share of the images held out for validation where the folder has no split.
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        data_wait_s: How long images are waited for when their file server or folder is away; 0: not at all.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        workers: Processes that decode and augment; 0: none beside the main one.
        image_size: Side of the images, or height and width.
        in_channels: Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files have (docs/how-to/preprocessing.md).
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.
        interpolation: How images are resized.
        antialias: Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: Evaluation: image_size / crop_pct is the short side before the centre crop.
        mean: Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).
        std: Channel standard deviations, on the scale of `mean`.
        model: convnextv2_ atto, femto, pico, nano, tiny, base, large or huge, or 'custom'.
        depths: Blocks per stage, for model: custom.
        dims: Channels per stage, for model: custom.
        num_classes: Number of classes; empty: as many as the data have.
        init: Weights to start from: a run folder, a weights file of any known format, or OWNER/NAME on the Hugging Face Hub.
        ema: Keep a moving average of the weights, and evaluate that.

    Returns:
        The figures.
    """

def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top_k: int = 5,
    json: bool = False,
    server: str | Path = "",
    api_key: str | Path = "",
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
) -> list[dict[str, Any]]:
    """Print the most probable classes of images, and return them.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        images: Image files, or folders of them.
        top_k: How many classes to show.
        json: Print one JSON object for each image, for machines.
        server: Ask the server at this address; RUN is then a model's name there.
        api_key: Key of the server. Empty: the environment's CONVNEXTV2_API_KEY.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        workers: Processes that decode and augment; 0: none beside the main one.

    Returns:
        A list of `{"image": name, "predictions": [{"class": name, "prob": probability}, ...]}`.
    """

def export(
    run: str | Path,
    *,
    format: Literal["onnx", "torch", "aoti", "openvino"] = "onnx",
    precision: Literal["float32", "float16", "bfloat16", "int8"] = "float32",
    outputs: Literal["classifier", "features", "backbone"] = "classifier",
    input: Literal["images", "pixels"] = "images",
    dynamic_size: bool = False,
    calibrate: bool = False,
    images: int = 512,
    seconds: float = 5.0,
    out: str | Path = "",
    layout: Literal["folder", "triton", "ovms"] = "folder",
    name: str | Path = "",
    overwrite: bool = False,
    seed: int = 42,
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 16,
    workers: int | Literal["auto"] = "auto",
) -> Path:
    """Write an artifact: the model in another format, with all that is needed to use it.

    That is its preprocessing, its class names and a certificate of how it compares with the PyTorch
    model. An artifact in place of a run is put into another layout. data_dir: images to measure on
    in place of the run's. batch_size: of the comparison of speeds.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        format: Format of the artifact.
        precision: Arithmetic of the artifact; GRN and layer norm keep float32 statistics in all of them.
        outputs: What it returns: logits, embedding and explanation map (classifier), the embedding (features), or the maps of the four stages (backbone).
        input: What it takes: normalised images; or uint8 pixels, and then it returns probabilities.
        dynamic_size: Take images of any multiple of the total stride.
        calibrate: Fit the temperature of the probabilities to validation images.
        images: Measure on at most so many validation images, evenly spread.
        seconds: Compare speeds for at least so long.
        out: Folder to write. Empty: artifacts/FORMAT-PRECISION in the run.
        layout: A folder, or a model repository for the servers Triton or OpenVINO Model Server in `out`.
        name: Name of the model in a repository. Empty: the run's.
        overwrite: Replace an artifact that is there.
        seed: Every random choice follows from it and from the position in the run.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        val_split: Sub-folder with the validation images.
        class_order: How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        val_fraction: Share of the images held out for validation where the folder has no split.
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        workers: Processes that decode and augment; 0: none beside the main one.

    Returns:
        Its folder.
    """

def serve(
    models: str | Path | Sequence[str | Path],
    *,
    max_body_mb: float = 32.0,
    max_bodies_mb: float = 512.0,
    max_images: int = 64,
    max_image_pixels: int = 64000000,
    max_queue: int = 256,
    max_batch: int = 32,
    max_delay_ms: float = 2.0,
    deadline_s: float = 10.0,
    read_timeout_s: float = 20.0,
    drain_s: float = 1.0,
    host: str | Path = "127.0.0.1",
    port: int = 8000,
    api_key: str | Path = "",
    api_key_file: str | Path = "",
    cors_origins: str | Path = "",
    access_log: Literal["failed", "all", "json", "off"] = "failed",
    ssl_certfile: str | Path = "",
    ssl_keyfile: str | Path = "",
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
) -> None:
    """Serve models until the process is told to end.

    SIGTERM finishes what was accepted; SIGHUP reloads what has changed.

    Args:
        models: [NAME[@VERSION]=]PATH of a run, weights file or artifact, or OWNER/NAME of the Hub.
        max_body_mb: Maximum request body.
        max_bodies_mb: Maximum of all request bodies together that are being received or answered.
        max_images: Maximum number of images in a request.
        max_image_pixels: Largest image to decode, judged by its header. Twice as many pixels are decoded at once.
        max_queue: Maximum number of images that wait, over all requests. Further requests are refused.
        max_batch: Maximum number of images that the model gets at once.
        max_delay_ms: Time that the first image of a batch waits for others while the model is idle.
        deadline_s: Maximum time from the last byte of a request to its answer.
        read_timeout_s: Time allowed to receive a request's head, then its body, and for the client to take the answer.
        drain_s: Time to go on taking requests after SIGTERM, so that a load balancer can look away.
        host: Address to listen on; 0.0.0.0 for all.
        port: Port to listen on; 0 for any that is free.
        api_key: Key that clients must send. Empty: the environment's CONVNEXTV2_API_KEY.
        api_key_file: File with more keys, one on each line; SIGHUP reads it again.
        cors_origins: Origins whose pages may call the server, separated by commas.
        access_log: Requests to write down: failed ones, all, all as JSON (json), or none (off).
        ssl_certfile: Certificate for HTTPS, as PEM; SIGHUP reads it again.
        ssl_keyfile: Key of the certificate, not encrypted.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.

    Raises:
        RecipeError: Options cannot be used.
        DeviceError: The port is taken, or a model does not run.
        MissingPackageError: What serving needs is not installed.
    """

def convert(
    weights: str | Path,
    *,
    to: Literal["official", "timm", "transformers", "mmpretrain", "mindcv", "convnextv2"],
    out: str | Path,
    ema: bool = False,
    allow_drift: bool = False,
) -> Path:
    """Write weights for another library.

    Args:
        weights: Run folder, weights file, Hub folder, or OWNER/NAME on the Hub.
        to: Format to write.
        out: File where it has a suffix, else a folder for the Hub.
        ema: Take the averaged weights of a training checkpoint.
        allow_drift: Write also what the target computes a little differently.

    Returns:
        The path that was written.
    """

def inspect(
    weights: str | Path,
) -> Weights:
    """Print what weights of any known format are.

    The lines say file, size, network, preparation of images, what else is in them, and licence.

    Args:
        weights: Run folder, checkpoint, weights file or artifact.

    Returns:
        The opened weights.
    """

def infer(
    *,
    image_path: str | Path = "",
    ckpt_path: str | Path = "",
    model: str | Path = "",
    top_k: int = 5,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
) -> dict[str, float]:
    """Print and return {class: probability} of the best classes of one image.

    The image is prepared as the weights say. Knobs that MindCV's scripts pass to every program are
    named as without effect.

    Args:
        image_path: The image.
        ckpt_path: Weights of any known format, or a run folder.
        model: Only checked: the weights say what they are.
        top_k: How many classes to show.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        workers: Processes that decode and augment; 0: none beside the main one.
    """

def reconstruct(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "reconstructions.png",
    count: int = 16,
    seed: int = 42,
    device: str | Path = "auto",
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    mask_ratio: float = 0.6,
) -> Path:
    """Write a picture with reconstructions of images.

    For each image it shows the input, what the encoder saw, and the reconstruction with the
    visible tiles pasted back. The picture's ending says its format.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        images: Image files, or folders of them.
        out: Picture to write.
        count: Show at most so many images, evenly spread.
        seed: Every random choice follows from it and from the position in the run.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        max_image_pixels: Largest image that is decoded.
        mask_ratio: Share of the tiles that is hidden.

    Returns:
        The path of the picture.

    Raises:
        RecipeError: `out` cannot be used.
        DataError: None of the images can be read, or one and `bad_images` is "fail".
        CheckpointError: The weights are not of a pre-training run.
    """

def replay(
    run: str | Path,
    *,
    step: int | None = None,
) -> list[Replayed]:
    """Run a step that was kept in bad_steps/ again, image by image.

    The images are those that the network got: cropped and augmented. Mixing and masks are drawn
    anew for each image, so that a step that only a mixture breaks may be finite here.

    Args:
        run: Run folder.
        step: Which one. Empty: the last that was kept.

    Returns:
        Every image of it on all ranks, the worst first.

    Raises:
        RunError: The run kept no such step.
        CheckpointError: What was kept cannot be read.
    """

def statistics(
    data: str | Path,
    *,
    in_channels: int | None = None,
    max_images: int | None = None,
    json: bool = False,
    seed: int = 42,
    train_split: str | Path = "train",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    max_image_pixels: int = 178956970,
    workers: int | Literal["auto"] = "auto",
    value_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Measure the training images of a folder or table, print what a recipe needs, return it.

    Labels are not needed. Pixels are measured as files are decoded, before they are resized.

    Args:
        data: Folder of images, or a table; labels are not needed.
        in_channels: Channels that the network takes. Empty: 3, or those of the first image.
        max_images: Measure at most so many, a fixed random choice. Empty: all.
        json: Print one JSON object, for machines.
        seed: Every random choice follows from it and from the position in the run.
        train_split: Sub-folder with the training images.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        max_image_pixels: Largest image that is decoded.
        workers: Processes that decode and augment; 0: none beside the main one.
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.

    Returns:
        images, in_channels, mean, std, value_range (None for files of 8 bits) and what else was
        found: sizes, bands, types, minimum, maximum and percentiles of the values, NaN and no-data
        values, files that were left out.

    Raises:
        DataError: There are no images, or none of them can be measured.
        RecipeError: An option has a wrong value.
        MissingPackageError: A package for these files is missing.
    """

def plan(
    verb: Literal["", "train", "pretrain"] = "",
    config: str | Path | None = None,
    *,
    probe_seconds: float = 30.0,
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    val_while_train: bool = True,
    val_every_epochs: int = 1,
    save_every_epochs: int = 1,
    save_every_steps: int | None = None,
    save_every_minutes: float | None = None,
    async_save: bool = True,
    bad_steps: Literal["stop", "skip"] = "stop",
    keep_checkpoints: int = 2,
    keep_policy: Literal["latest_k", "top_k", "all"] = "latest_k",
    mindcv_files: bool = False,
    log_every_steps: int = 50,
    tensorboard: bool = True,
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    num_samples: int | None = None,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    shuffle: bool = True,
    drop_last: bool = True,
    workers: int | Literal["auto"] = "auto",
    cache_mb: int = 0,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    value_range: tuple[float, float] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),
    crop_padding: int = 0,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.0,
    auto_augment: str | Path | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bicubic",
    antialias: bool | None = None,
    erase_prob: float = 0.0,
    erase_scale: tuple[float, float] = (0.02, 0.3333333333333333),
    erase_ratio: tuple[float, float] = (0.3, 3.3),
    erase_value: Literal["random"] | float | tuple[float, ...] = "random",
    erase_attempts: int = 10,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    mix_prob: float = 1.0,
    mix_switch_prob: float = 0.5,
    aug_repeats: int = 0,
    aug_splits: Literal[0, 3] = 0,
    eval_preset: Literal["timm", "official", "mindcv"] = "timm",
    crop_pct: float = 0.875,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    model: str | Path = "convnextv2_atto",
    depths: tuple[int, int, int, int] | None = None,
    dims: tuple[int, int, int, int] | None = None,
    num_classes: int | None = None,
    stem_stride: Literal[1, 2, 4] = 4,
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    head_init_scale: float = 1.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = "none",
    epochs: int = 100,
    optimizer: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal["cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle", "cyclic"] = "cosine",
    warmup_epochs: float = 0.0,
    warmup_factor: float = 0.0,
    decay_epochs: int | None = None,
    decay_rate: float = 0.9,
    decay_milestones: tuple[int, ...] = (30, 60, 90),
    lr_epoch_stair: bool = False,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
    betas: tuple[float, float] | None = None,
    eps: float = 1e-08,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.05,
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = "norm_and_bias",
    layer_decay: float | None = None,
    layer_decay_form: Literal["single", "group"] = "single",
    clip_norm: float | None = None,
    loss_scale: float = 65536.0,
    global_batch: int | None = None,
    accumulate: int = 1,
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = "ce",
    loss_reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
    ema: bool = False,
    ema_decay: float = 0.9999,
    ema_form: Literal["warmup", "mindcv", "constant"] = "warmup",
    mask_ratio: float = 0.6,
    tile: int | None = None,
    norm_target: bool = True,
    decoder_dim: int = 512,
    decoder_depth: int = 1,
) -> dict[str, Any]:
    """Run a recipe's first steps, and say what the whole of it would cost.

    The steps run in a process of their own and a folder that is deleted. The first one, which may
    compile, does not count. Memory is that of the host.

    Args:
        verb: train or pretrain. Empty: what the recipe is for.
        config: YAML file, or a name that `convnextv2 recipes` lists.
        probe_seconds: How long to measure.
        out: Run folder to write. Empty: runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`; auto: start it where it has none, so that one command serves for the first start and for every later one.
        resume_allow: What may differ from the run that is resumed, by name: knobs, images, classes, precision, ranks. Anything else that changes what is learned is refused.
        overwrite: Delete what is in `out` and start anew.
        seed: Every random choice follows from it and from the position in the run.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        distribute: Use the ranks that torchrun, mpirun or SLURM started.
        elastic: Give the same weights bit for bit on any number of ranks: a step has accumulate x ranks batches, a power of two, whose gradients are added in a fixed order.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        compile: torch.compile the step (needs a compiler; slow first step).
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        val_precision: Arithmetic of `validate`; same: that of `precision`.
        val_while_train: Evaluate on the validation images during training.
        val_every_epochs: Evaluate every so many epochs (and after the last).
        save_every_epochs: Save a checkpoint every so many epochs (and after the last).
        save_every_steps: Save one every so many steps, too.
        save_every_minutes: Save one when the last is so many minutes old, too.
        async_save: Write checkpoints while training goes on; takes memory for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite; its batch is kept in bad_steps/ for `replay`. skip leaves the step out, up to 10 in a row.
        keep_checkpoints: How many checkpoints to keep beside best/, by `keep_policy`.
        keep_policy: Which: the newest, those with the best top-1 (and the newest), or all.
        mindcv_files: Write MindCV's files too: result.log and MindSpore checkpoints by MindCV's names.
        log_every_steps: Steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        val_split: Sub-folder with the validation images.
        class_order: How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        val_fraction: Share of the images held out for validation where the folder has no split.
        num_samples: Use at most this many training images (a fixed random choice).
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        data_wait_s: How long images are waited for when their file server or folder is away; 0: not at all.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Leave out the last, smaller batch of an epoch in training.
        workers: Processes that decode and augment; 0: none beside the main one.
        cache_mb: Memory for decoded training images, shared by the workers of a rank; what does not fit is decoded each time. With it, JPEGs are decoded whole.
        image_size: Side of the images, or height and width.
        in_channels: Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files have (docs/how-to/preprocessing.md).
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.
        scale: Share of the image's area that a random crop keeps: least, most.
        ratio: Width/height of a random crop: least, most.
        crop_padding: Pad with black by so many pixels and crop back at a random place, in place of the random resized crop; 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random brightness, contrast, saturation (and, as 4th number, hue). Not used with `auto_augment`.
        auto_augment: Policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: How images are resized.
        antialias: Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: least, most.
        erase_ratio: Aspect ratio of the erased rectangle: least, most.
        erase_value: What fills it: 'random' is noise from N(0, 1) per pixel; numbers (one, or one for each channel) are normalised values.
        erase_attempts: Tries to place the rectangle; failing that, the image stays whole.
        mixup: Alpha of mixup's Beta distribution; 0: off.
        cutmix: Alpha of cutmix's Beta distribution; 0: off.
        mix_prob: Probability that a batch is mixed at all.
        mix_switch_prob: Probability of cutmix where both are on.
        aug_repeats: How often each image occurs in an epoch, each time augmented anew (an epoch keeps its length); 0: once.
        aug_splits: 3: each batch holds every image clean and twice augmented (3 x batch_size), as the jsd loss needs it.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: Evaluation: image_size / crop_pct is the short side before the centre crop.
        mean: Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).
        std: Channel standard deviations, on the scale of `mean`.
        model: convnextv2_ atto, femto, pico, nano, tiny, base, large or huge, or 'custom'.
        depths: Blocks per stage, for model: custom.
        dims: Channels per stage, for model: custom.
        num_classes: Number of classes; empty: as many as the data have.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        gelu: Form of GELU; MindCV's weights want 'tanh'.
        grn_scope: What GRN's statistics are taken over; 'batch' matches the official sparse code.
        norm_eps: Epsilon of the final norm; transformers' checkpoints have 1e-12.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        head_init_scale: Factor on the head's initial weights; 0.001 when fine-tuning.
        grad_checkpoint: Recompute activations in the backward pass: less memory, more time.
        init: Weights to start from: a run folder, a weights file of any known format, or OWNER/NAME on the Hugging Face Hub.
        resume_init: Continue at the epoch that a MindSpore checkpoint in `init` states (MindCV's ckpt_path), not at 0.
        resume_opt: Take the optimizer's state too from the MindSpore checkpoint in `init`.
        freeze: What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or all but norm and head.
        epochs: Passes over the training images.
        optimizer: Update rule; lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size`.
        lr_batch_size: Global batch for which `lr` is stated; empty: for whatever batch is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Learning rate at the end of the cosine.
        schedule: Course of the learning rate after the warm-up.
        warmup_epochs: Linear warm-up at the start, counted in `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or the period of step; empty: all epochs after the warm-up.
        decay_rate: Factor of exponential, step and multi_step; power of polynomial.
        decay_milestones: Epochs after the warm-up at which multi_step decays.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Cosines one after the other, or periods of cyclic.
        cycle_decay: Factor on the peak from one cosine to the next.
        betas: Averaging factors; empty: the optimizer's own ((0.9, 0.999) for adamw, adam, nadam and lamb).
        eps: Epsilon of adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Nesterov's form of sgd's momentum.
        weight_decay: Weight decay; decoupled in adamw, lion, lamb and adan, added to the gradient elsewhere.
        weight_decay_filter: Spared from weight decay: norms, biases, GRN and the mask token; nothing (disable); or norms and GRN only (auto).
        layer_decay: Learning-rate factor per layer, from the head (1) down to the stem.
        layer_decay_form: A layer is one block, or a group of blocks (base and large in the paper).
        clip_norm: Clip the gradient's global norm.
        loss_scale: In float16: factor on the loss at the start; halved on overflow, doubled after 2000 good steps.
        global_batch: Images in one step, over all ranks; `accumulate` follows from it, and with batch_size auto both are chosen to keep it. Empty: batch_size x accumulate x ranks.
        accumulate: Batches whose gradients make one step.
        loss: Softmax or binary cross entropy, asymmetric loss, or Jensen-Shannon divergence (with aug_splits 3).
        loss_reduction: Mean or sum over the batch (ce and bce).
        label_smoothing: Share of the target that is spread over all classes.
        ema: Keep a moving average of the weights, and evaluate that.
        ema_decay: Its decay per step.
        ema_form: Decay after t steps: min(decay, (1 + t) / (10 + t)); decay * (1 - exp(-t / 2000)) (mindcv); decay (constant).
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile; empty: the total stride (8 x stem_stride).
        norm_target: Normalise the pixels of each masked tile before they are compared.
        decoder_dim: Channels of the decoder.
        decoder_depth: Blocks of the decoder.

    Returns:
        Images per second, memory, time and disk of the whole run.
    """

def benchmark(
    works: str | Path | Sequence[str] = (),
    *,
    models: str | Path = "atto,tiny",
    backends: str | Path = "installed",
    seconds: float = 10.0,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    data_dir: str | Path = "",
    dataset: Literal["", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100"] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    num_samples: int | None = None,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 32,
    shuffle: bool = True,
    drop_last: bool = True,
    workers: int | Literal["auto"] = "auto",
    cache_mb: int = 0,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    value_range: tuple[float, float] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (0.75, 1.3333333333333333),
    crop_padding: int = 0,
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | tuple[float, ...] = 0.0,
    auto_augment: str | Path | None = None,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"] = "bicubic",
    antialias: bool | None = None,
    erase_prob: float = 0.0,
    erase_scale: tuple[float, float] = (0.02, 0.3333333333333333),
    erase_ratio: tuple[float, float] = (0.3, 3.3),
    erase_value: Literal["random"] | float | tuple[float, ...] = "random",
    erase_attempts: int = 10,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    mix_prob: float = 1.0,
    mix_switch_prob: float = 0.5,
    aug_repeats: int = 0,
    aug_splits: Literal[0, 3] = 0,
    eval_preset: Literal["timm", "official", "mindcv"] = "timm",
    crop_pct: float = 0.875,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    drop_path_rate: float = 0.0,
    optimizer: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"] = "adamw",
    mask_ratio: float = 0.6,
    tile: int | None = None,
) -> list[dict[str, Any]]:
    """Measure whole steps of pre-training and training, inference, and the training loader.

    Each row is measured in a process of its own, so that its memory is its own: the peak beyond
    what imports took, weights and optimizer included. Two repetitions do not count.

    Args:
        works: pretrain, train, inference, loader. Without any: all, loader only where there is a data_dir.
        models: Sizes, separated by commas.
        backends: Engines of inference, separated by commas: eager, compiled, aoti, onnxruntime, openvino; or installed, for all that are here.
        seconds: How long to measure each row.
        device: auto, cpu, cuda, npu, mps, ... ('cuda:1' picks one).
        precision: Arithmetic of the forward pass; auto: bfloat16 where the device has it, float16 on GPUs before it, else float32.
        compile: torch.compile the step (needs a compiler; slow first step).
        kernels: On the CPU: native ones, in C++ and compiled at first use, or PyTorch's; auto: native where a compiler is.
        data_dir: Image folder (train/ and val/ inside, or classes directly), or a table (CSV, TSV, JSONL, ...) with path and label.
        dataset: A named set instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named set to be downloaded.
        train_split: Sub-folder with the training images.
        val_split: Sub-folder with the validation images.
        class_order: How rows of foreign weights without class names are matched with the data's classes: text (sorted as torchvision does), natural (digits as numbers, as timm does), number (folders are named by their rows), or a file with one class name in each line, row by row. auto: by the weights' format, ImageNet's ids and numbered folders.
        columns: Columns of a table where their names are not the usual ones, such as path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table start from. Empty: the folder of the table.
        image_suffix: Ending to add to names in a table that have none, such as .jpg.
        val_fraction: Share of the images held out for validation where the folder has no split.
        num_samples: Use at most this many training images (a fixed random choice).
        bad_images: What to do with a file that is no image or is truncated: stop, or leave it out and count it. quarantine also lists it in the run's quarantine.jsonl, and the run never reads it again; without a run it is skip.
        data_wait_s: How long images are waited for when their file server or folder is away; 0: not at all.
        max_image_pixels: Largest image that is decoded.
        batch_size: Images that a rank takes at once; auto: as many as fit into memory, with `accumulate` so that the global batch is kept (in training; elsewhere the default).
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Leave out the last, smaller batch of an epoch in training.
        workers: Processes that decode and augment; 0: none beside the main one.
        cache_mb: Memory for decoded training images, shared by the workers of a rank; what does not fit is decoded each time. With it, JPEGs are decoded whole.
        image_size: Side of the images, or height and width.
        in_channels: Channels that the network takes: 3 (RGB), 1 (grey), or the number of bands that the files have (docs/how-to/preprocessing.md).
        value_range: For files deeper than 8 bits: the values that become black and white, for all channels and images alike; what lies outside is cut off. Empty: as docs/how-to/preprocessing.md says.
        scale: Share of the image's area that a random crop keeps: least, most.
        ratio: Width/height of a random crop: least, most.
        crop_padding: Pad with black by so many pixels and crop back at a random place, in place of the random resized crop; 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random brightness, contrast, saturation (and, as 4th number, hue). Not used with `auto_augment`.
        auto_augment: Policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: How images are resized.
        antialias: Average over the source pixels when shrinking; empty: as `eval_preset` does (all but mindcv).
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: least, most.
        erase_ratio: Aspect ratio of the erased rectangle: least, most.
        erase_value: What fills it: 'random' is noise from N(0, 1) per pixel; numbers (one, or one for each channel) are normalised values.
        erase_attempts: Tries to place the rectangle; failing that, the image stays whole.
        mixup: Alpha of mixup's Beta distribution; 0: off.
        cutmix: Alpha of cutmix's Beta distribution; 0: off.
        mix_prob: Probability that a batch is mixed at all.
        mix_switch_prob: Probability of cutmix where both are on.
        aug_repeats: How often each image occurs in an epoch, each time augmented anew (an epoch keeps its length); 0: once.
        aug_splits: 3: each batch holds every image clean and twice augmented (3 x batch_size), as the jsd loss needs it.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: Evaluation: image_size / crop_pct is the short side before the centre crop.
        mean: Channel means for normalisation, on the scale 0 to 1 (or, if one of mean or std is above 1, 0 to 255).
        std: Channel standard deviations, on the scale of `mean`.
        drop_path_rate: Stochastic depth of the last block; grows linearly from 0.
        optimizer: Update rule; lion, lamb and adan need the extra [optimizers].
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile; empty: the total stride (8 x stem_stride).

    Returns:
        The rows of the table that is printed.
    """

def models(
    pattern: str | Path = "*",
    *,
    image_size: int = 224,
) -> list[dict[str, Any]]:
    """Print the sizes that match a pattern: depths, widths, parameters, multiply-adds.

    Parameters are those with 1000 classes. Multiply-adds are those of a forward pass, counted from
    the network itself on the meta device.

    Args:
        pattern: Only these, such as '*tiny'.
        image_size: Side of the image for the multiply-adds.

    Returns:
        The same as a list.
    """

def recipes(
    *,
    copy: str | Path = "",
    schema: bool = False,
) -> list[tuple[str, str]]:
    """Print the recipes that `config` finds by name, each with its first line.

    Args:
        copy: Copy this recipe into the working folder, to be changed.
        schema: Print the JSON schema of recipes, by which editors complete them.

    Returns:
        The same as a list.

    Raises:
        RecipeError: There is no recipe of the name to copy, or the working folder has a file of it.
    """

def demo(
    *,
    quick: bool = False,
    out: str | Path = "runs/demo",
) -> Path:
    """Run pre-training, fine-tuning, validation and prediction on the bundled images.

    Args:
        quick: Be done in about a minute; the accuracy is not meant to be good.
        out: Folder to write; an earlier demo in it is replaced.

    Returns:
        The path of the report.
    """
