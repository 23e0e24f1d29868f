"""What the public face takes and returns. Made by scripts/write_stub.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convnextv2.auditing.page import AuditReport
from convnextv2.inference.predictor import Predictor as Predictor
from convnextv2.errors import ConvNeXtV2Error as ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2 as ConvNeXtV2
from convnextv2.model.convnext import create_model as create_model
from convnextv2.model.fcmae import FCMAE as FCMAE
from convnextv2.run import Run
from convnextv2.tasks.measure import AnyEvaluation
from convnextv2.data.shards.pack import Packed
from convnextv2.evaluation.probes import Probed
from convnextv2.verbs.replay import Replayed
from convnextv2.weights.opened import Weights

__version__: str
__all__: list[str]

def pretrain(
    config: str | Path | None = None,
    *,
    show_images: str | Path = "",
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    shard: bool = False,
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
    loggers: tuple[str, ...] | None = None,
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
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
    shard_cache_gb: float = 20.0,
    cache_mb: int = 0,
    image_size: int | tuple[int, int] | Literal["auto"] = 224,
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
    block: Literal["v2", "v2_without_grn", "v1"] = "v2",
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    inner_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    epochs: int = 100,
    time: str | Path = "",
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan",
    ] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal[
        "cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle",
        "cyclic",
    ] = "cosine",
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
    teacher: str | Path = "",
    distill_weight: float = 1.0,
    task_weight: float | None = None,
    mask_ratio: float = 0.6,
    tile: int | None = None,
    norm_target: bool = True,
    decoder_dim: int = 512,
    decoder_depth: int = 1,
    health_every_epochs: int | None = None,
    probe_every_epochs: int | None = None,
    probe_dir: str | Path = "",
) -> Run:
    """Pre-train an encoder on images without labels, to start `train(init=...)` from.

    With `show_images`, the first training images are written as a picture, each beside what its
    masks leave visible, and nothing is trained.

    Args:
        config: Recipe: a YAML file, or a name that `convnextv2 recipes` lists.
        show_images: Write the first augmented training images to this PNG file, as the network
            would get them, and stop before training. No run folder is written.
        out: Run folder to write. If empty, it is runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`. With auto, a run
            that has no checkpoint yet is started, so that one command serves for the first start
            and for every later one.
        resume_allow: Names of what may differ from the run that is resumed: knobs (such as
            precision), images, classes or ranks. Any other difference that changes what is learned
            is refused.
        overwrite: Delete the contents of `out` and start again.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        distribute: Use the ranks that torchrun, mpirun or SLURM started. With auto, they are used
            if there are any.
        elastic: Give the same weights bit for bit on any number of ranks. A step then has
            accumulate x ranks batches, which must be a power of two, and their gradients are added
            in a fixed order.
        shard: Share weights, gradients, moments and the moving average among the ranks, so that
            each holds only its part (FSDP2). For models that do not fit into the memory of one
            device; docs/how-to/sharding.md.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        compile: Compile the training step with torch.compile. This needs a compiler, and the first
            step is slow.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        save_every_epochs: Number of epochs between checkpoints. The last epoch is always saved.
        save_every_steps: Also save a checkpoint each time this many steps have passed.
        save_every_minutes: Also save a checkpoint when the last one is this old.
        async_save: Write checkpoints in the background while training goes on. This takes memory
            for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite: stop the run, or
            skip the step, up to 10 in a row. Its batch is kept in bad_steps/ for `replay`.
        keep_checkpoints: Number of checkpoints to keep in addition to best/. `keep_policy` chooses
            them.
        keep_policy: Which checkpoints to keep: latest_k (the newest), top_k (the best by `best_by`,
            and the newest), or all.
        mindcv_files: Also write MindCV's files: result.log, and MindSpore checkpoints under
            MindCV's names.
        log_every_steps: Number of steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        loggers: Loggers of other projects to write to as well: wandb, mlflow, trackio. They never
            stop a run.
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        num_samples: Use at most this many training images. They are chosen at random, but always in
            the same way.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        data_wait_s: How long to wait for images while their file server or folder is unavailable.
            0: do not wait.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Drop the last, incomplete batch of each training epoch.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.
        cache_mb: Memory for decoded training images, shared by the workers of a rank. Images that
            do not fit are decoded each time. With a cache, JPEG files are decoded at full
            resolution.
        image_size: Side of the square images, or their height and width. With `time`, auto takes
            the largest size at which 20 epochs fit.
        in_channels: Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of
            bands in the files (docs/how-to/preprocessing.md).
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        scale: Share of the image's area that a random crop keeps: minimum and maximum.
        ratio: Aspect ratio (width / height) of a random crop: minimum and maximum.
        crop_padding: Pad each side with this many black pixels and crop back to size at a random
            place. This replaces the random resized crop. 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random changes of brightness, contrast and saturation: one number
            for all three, or one for each. A fourth number is for hue. Not used with
            `auto_augment`.
        auto_augment: Augmentation policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: Interpolation with which images are resized.
        antialias: Average over the source pixels when an image is reduced. If empty, `eval_preset`
            decides: all presets do except mindcv.
        erase_scale: Share of the image's area that is erased: minimum and maximum.
        erase_ratio: Aspect ratio of the erased rectangle: minimum and maximum.
        erase_value: What fills the erased rectangle. 'random': noise from N(0, 1) for each pixel.
            Numbers (one, or one for each channel): these normalised values.
        erase_attempts: Number of attempts to place the rectangle. If all fail, the image is left as
            it is.
        aug_repeats: How often each image occurs in an epoch, augmented anew each time. The epoch
            keeps its length. 0: once.
        aug_splits: 3: each batch holds one clean and two augmented versions of every image (3 x
            batch_size images), as the jsd loss requires. 0: off.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: In evaluation, the short side is resized to image_size / crop_pct before the
            centre crop.
        mean: Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if
            any value of mean or std is above 1).
        std: Standard deviation of each channel, on the scale of `mean`.
        model: Name of the network: convnextv2_ and atto, femto, pico, nano, tiny, small, base,
            large, xlarge or huge; or 'custom', with `depths` and `dims`.
        depths: Number of blocks in each of the four stages, for model: custom.
        dims: Number of channels in each of the four stages, for model: custom.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        block: Form of the blocks: those of ConvNeXt V2, the same without GRN, or those of the first
            ConvNeXt, with a layer scale and without GRN. The last two are for comparison.
        gelu: Form of GELU. Weights from MindCV need 'tanh'.
        grn_scope: What the statistics of GRN are computed over: each image, or the whole batch, as
            in the official sparse code.
        norm_eps: Epsilon of the final norm. Checkpoints of Transformers have 1e-12.
        inner_eps: Epsilon of all norms but the final one. convnext_xxlarge of timm has 1e-5.
        drop_path_rate: Stochastic depth rate of the last block. The rate grows linearly from 0 at
            the first block.
        grad_checkpoint: Recompute activations in the backward pass, which takes less memory and
            more time.
        init: Weights to start from: a run folder, a weights file of any known format, OWNER/NAME on
            the Hugging Face Hub, or a name that `models --weights` lists. 'pretrained' takes public
            weights of the model's size whose licence allows commercial use.
        resume_init: Continue at the epoch that is recorded in the MindSpore checkpoint in `init`
            (MindCV's ckpt_path) instead of at epoch 0.
        resume_opt: Also load the state of the optimizer from the MindSpore checkpoint in `init`.
        epochs: Number of passes over the training images.
        time: Time for the whole run, such as 30m, 1h30m or 2d, in place of `epochs`. A number alone
            means minutes. The first epoch warms the learning rate up and is measured; the learning
            rate then falls along a cosine over as many epochs as fit.
        optimizer: Optimizer to use. lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size` images.
        lr_batch_size: Global batch for which `lr` is stated. If empty, `lr` is for whatever batch
            is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Lowest learning rate of the cosine, one_cycle and cyclic schedules.
        schedule: Shape of the learning rate schedule after the warm-up.
        warmup_epochs: Length of the linear warm-up at the start. It counts as part of `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or period of the step schedule. If empty, it is all epochs
            after the warm-up.
        decay_rate: Factor of the exponential, step and multi_step schedules; power of the
            polynomial schedule.
        decay_milestones: Epochs after the warm-up at which multi_step lowers the learning rate.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Number of cosines, one after another, or of periods of the cyclic schedule.
        cycle_decay: Factor on the peak learning rate from one cosine to the next.
        betas: Decay rates of the optimizer's moving averages. If empty, they are the optimizer's
            own: (0.9, 0.999) for adamw, adam, nadam and lamb.
        eps: Epsilon of the adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Use Nesterov momentum with sgd.
        weight_decay: Weight decay. It is decoupled in adamw, lion, lamb and adan, and added to the
            gradient in the other optimizers.
        weight_decay_filter: What is exempt from weight decay: norms, biases, GRN and the mask token
            (norm_and_bias), only norms and GRN (auto), or nothing (disable).
        clip_norm: Maximum of the gradient's global norm. A larger gradient is scaled down to it.
        loss_scale: Factor on the loss in float16 at the start. It is halved on overflow and doubled
            after 2000 steps without one.
        global_batch: Number of images in one step, over all ranks. `accumulate` follows from it;
            with batch_size auto, both are chosen so as to keep it. If empty, it is batch_size x
            accumulate x ranks.
        accumulate: Number of batches whose gradients make up one step.
        ema: Keep an exponential moving average of the weights, and evaluate that average.
        ema_decay: Decay of the moving average at each step.
        ema_form: Decay of the moving average after t steps. warmup: min(decay, (1 + t) / (10 + t)).
            mindcv: decay * (1 - exp(-t / 2000)). constant: decay.
        teacher: Model to learn from: a run folder, a weights file of any known format, OWNER/NAME
            on the Hugging Face Hub, a name that `models --weights` lists, or an exported artifact.
            It sees the same crops and mixtures as the model that learns (docs/how-to/distil.md).
        distill_weight: Weight of what the teacher says in the loss.
        task_weight: Weight of the loss without the teacher. If empty, it is 0 with soft labels
            (labels do not count then, as in Beyer et al. 2022), and otherwise 1.
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile. If empty, it is the total stride (8 x stem_stride).
        norm_target: Normalise the pixels of each masked tile before the loss compares them.
        decoder_dim: Number of channels in the decoder.
        decoder_depth: Number of blocks in the decoder.
        health_every_epochs: Number of epochs between examinations of the features and gradients on
            a fixed set of images, which the report shows. The first and the last epoch are always
            examined then. Empty: never.
        probe_every_epochs: Number of epochs between probes of the frozen features, by nearest
            neighbours and a linear layer. The images need labels for that. The first and the last
            epoch are always probed then. Empty: never.
        probe_dir: Labelled images for `probe_every_epochs`: a folder or a table. If empty, those of
            the run.

    Returns:
        The run. With `show_images`, it has no folder.
    """

def train(
    config: str | Path | None = None,
    *,
    show_images: str | Path = "",
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    task: Literal["classification", "segmentation", "detection"] = "classification",
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    shard: bool = False,
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    val_while_train: bool = True,
    val_every_epochs: int = 1,
    best_by: Literal["top1", "balanced_accuracy", "macro_f1", "loss"] = "top1",
    patience: int | None = None,
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
    loggers: tuple[str, ...] | None = None,
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
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
    shard_cache_gb: float = 20.0,
    cache_mb: int = 0,
    image_size: int | tuple[int, int] | Literal["auto"] = 224,
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
    block: Literal["v2", "v2_without_grn", "v1"] = "v2",
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    inner_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    head_init_scale: float = 1.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = "none",
    freeze_grn: bool = False,
    epochs: int = 100,
    time: str | Path = "",
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan",
    ] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal[
        "cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle",
        "cyclic",
    ] = "cosine",
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
    layer_decay_form: Literal["single", "group", "stage"] = "single",
    clip_norm: float | None = None,
    loss_scale: float = 65536.0,
    global_batch: int | None = None,
    accumulate: int = 1,
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = "ce",
    pos_weight: Literal["none", "balanced"] = "none",
    loss_reduction: Literal["mean", "sum"] = "mean",
    class_weights: Literal["none", "balanced", "effective"] | dict[str, float] = "none",
    class_weights_beta: float = 0.999,
    sampling: Literal["natural", "balanced", "sqrt"] | float = "natural",
    logit_adjustment: float = 0.0,
    label_smoothing: float = 0.0,
    ema: bool = False,
    ema_decay: float = 0.9999,
    ema_form: Literal["warmup", "mindcv", "constant"] = "warmup",
    teacher: str | Path = "",
    distill: Literal["auto", "soft", "features", "both"] = "auto",
    distill_weight: float = 1.0,
    distill_temperature: float = 4.0,
    task_weight: float | None = None,
    unlabelled: str | Path = "",
    classes: str | Path = "",
    ignore_values: tuple[int, ...] | None = None,
    reduce_zero_label: bool = False,
    scale_jitter: tuple[float, float] = (0.5, 2.0),
    max_class_share: float = 0.75,
    photometric: float = 0.0,
    head_channels: int = 512,
    head_norm: Literal["batch", "group"] = "batch",
    auxiliary_weight: float = 0.4,
    slide: bool = False,
    test_scales: tuple[float, ...] = (1.0,),
    test_flip: bool = False,
    annotations: Literal["auto", "coco", "voc", "yolo"] = "auto",
    masks: Literal["auto", "on", "off"] = "auto",
    fpn_channels: int = 256,
    finest_stride: Literal[4, 8] = 4,
    anchor_scale: float = 8.0,
    box_dim: int = 1024,
    proposals: int = 1000,
    rois: int = 512,
    max_detections: int = 100,
    soft_nms: bool = False,
) -> Run:
    """Train or fine-tune a classifier, segmentor or detector, and write a run folder with a report.

    `task` says what is learned. A classifier of images that have several labels each learns to give
    any number of them.

    With `show_images`, the first training images are written as a picture and nothing is trained.

    Args:
        config: Recipe: a YAML file, or a name that `convnextv2 recipes` lists.
        show_images: Write the first augmented training images to this PNG file, as the network
            would get them, and stop before training. No run folder is written.
        out: Run folder to write. If empty, it is runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`. With auto, a run
            that has no checkpoint yet is started, so that one command serves for the first start
            and for every later one.
        resume_allow: Names of what may differ from the run that is resumed: knobs (such as
            precision), images, classes or ranks. Any other difference that changes what is learned
            is refused.
        overwrite: Delete the contents of `out` and start again.
        task: What is learned: a class or labels for each image (classification), a class for each
            pixel (segmentation, docs/how-to/segmentation.md), or boxes and masks of objects
            (detection).
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        distribute: Use the ranks that torchrun, mpirun or SLURM started. With auto, they are used
            if there are any.
        elastic: Give the same weights bit for bit on any number of ranks. A step then has
            accumulate x ranks batches, which must be a power of two, and their gradients are added
            in a fixed order.
        shard: Share weights, gradients, moments and the moving average among the ranks, so that
            each holds only its part (FSDP2). For models that do not fit into the memory of one
            device; docs/how-to/sharding.md.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        compile: Compile the training step with torch.compile. This needs a compiler, and the first
            step is slow.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        val_precision: Arithmetic of the evaluation. same: that of `precision`.
        val_while_train: Evaluate on the validation images during training.
        val_every_epochs: Number of epochs between evaluations. The last epoch is always evaluated.
        best_by: Figure of the validation images that decides which weights are best: accuracy
            (top1), mean recall over the classes (balanced_accuracy), mean F1 over the classes
            (macro_f1), or the lowest loss.
        patience: Stop after this many epochs without a better `best_by`. If empty, all `epochs` are
            trained. With a cosine schedule most of the gain comes late, as the learning rate falls,
            so a small number stops too early.
        save_every_epochs: Number of epochs between checkpoints. The last epoch is always saved.
        save_every_steps: Also save a checkpoint each time this many steps have passed.
        save_every_minutes: Also save a checkpoint when the last one is this old.
        async_save: Write checkpoints in the background while training goes on. This takes memory
            for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite: stop the run, or
            skip the step, up to 10 in a row. Its batch is kept in bad_steps/ for `replay`.
        keep_checkpoints: Number of checkpoints to keep in addition to best/. `keep_policy` chooses
            them.
        keep_policy: Which checkpoints to keep: latest_k (the newest), top_k (the best by `best_by`,
            and the newest), or all.
        mindcv_files: Also write MindCV's files: result.log, and MindSpore checkpoints under
            MindCV's names.
        log_every_steps: Number of steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        loggers: Loggers of other projects to write to as well: wandb, mlflow, trackio. They never
            stop a run.
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        num_samples: Use at most this many training images. They are chosen at random, but always in
            the same way.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        data_wait_s: How long to wait for images while their file server or folder is unavailable.
            0: do not wait.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Drop the last, incomplete batch of each training epoch.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.
        cache_mb: Memory for decoded training images, shared by the workers of a rank. Images that
            do not fit are decoded each time. With a cache, JPEG files are decoded at full
            resolution.
        image_size: Side of the square images, or their height and width. With `time`, auto takes
            the largest size at which 20 epochs fit.
        in_channels: Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of
            bands in the files (docs/how-to/preprocessing.md).
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        scale: Share of the image's area that a random crop keeps: minimum and maximum.
        ratio: Aspect ratio (width / height) of a random crop: minimum and maximum.
        crop_padding: Pad each side with this many black pixels and crop back to size at a random
            place. This replaces the random resized crop. 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random changes of brightness, contrast and saturation: one number
            for all three, or one for each. A fourth number is for hue. Not used with
            `auto_augment`.
        auto_augment: Augmentation policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: Interpolation with which images are resized.
        antialias: Average over the source pixels when an image is reduced. If empty, `eval_preset`
            decides: all presets do except mindcv.
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: minimum and maximum.
        erase_ratio: Aspect ratio of the erased rectangle: minimum and maximum.
        erase_value: What fills the erased rectangle. 'random': noise from N(0, 1) for each pixel.
            Numbers (one, or one for each channel): these normalised values.
        erase_attempts: Number of attempts to place the rectangle. If all fail, the image is left as
            it is.
        mixup: Alpha of the Beta distribution of mixup. 0: off.
        cutmix: Alpha of the Beta distribution of cutmix. 0: off.
        mix_prob: Probability that mixup or cutmix is applied to a batch.
        mix_switch_prob: Probability of cutmix instead of mixup if both are on.
        aug_repeats: How often each image occurs in an epoch, augmented anew each time. The epoch
            keeps its length. 0: once.
        aug_splits: 3: each batch holds one clean and two augmented versions of every image (3 x
            batch_size images), as the jsd loss requires. 0: off.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: In evaluation, the short side is resized to image_size / crop_pct before the
            centre crop.
        mean: Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if
            any value of mean or std is above 1).
        std: Standard deviation of each channel, on the scale of `mean`.
        model: Name of the network: convnextv2_ and atto, femto, pico, nano, tiny, small, base,
            large, xlarge or huge; or 'custom', with `depths` and `dims`.
        depths: Number of blocks in each of the four stages, for model: custom.
        dims: Number of channels in each of the four stages, for model: custom.
        num_classes: Number of classes. If empty, it is the number of classes in the data.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        block: Form of the blocks: those of ConvNeXt V2, the same without GRN, or those of the first
            ConvNeXt, with a layer scale and without GRN. The last two are for comparison.
        gelu: Form of GELU. Weights from MindCV need 'tanh'.
        grn_scope: What the statistics of GRN are computed over: each image, or the whole batch, as
            in the official sparse code.
        norm_eps: Epsilon of the final norm. Checkpoints of Transformers have 1e-12.
        inner_eps: Epsilon of all norms but the final one. convnext_xxlarge of timm has 1e-5.
        drop_path_rate: Stochastic depth rate of the last block. The rate grows linearly from 0 at
            the first block.
        head_init_scale: Factor on the initial weights of the head. Use 0.001 for fine-tuning.
        grad_checkpoint: Recompute activations in the backward pass, which takes less memory and
            more time.
        init: Weights to start from: a run folder, a weights file of any known format, OWNER/NAME on
            the Hugging Face Hub, or a name that `models --weights` lists. 'pretrained' takes public
            weights of the model's size whose licence allows commercial use.
        resume_init: Continue at the epoch that is recorded in the MindSpore checkpoint in `init`
            (MindCV's ckpt_path) instead of at epoch 0.
        resume_opt: Also load the state of the optimizer from the MindSpore checkpoint in `init`.
        freeze: What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or
            everything except the final norm and the head (encoder).
        freeze_grn: Do not train GRN. A start from a ConvNeXt of the first version then stays one,
            and `convert` can write it as one.
        epochs: Number of passes over the training images.
        time: Time for the whole run, such as 30m, 1h30m or 2d, in place of `epochs`. A number alone
            means minutes. The first epoch warms the learning rate up and is measured; the learning
            rate then falls along a cosine over as many epochs as fit.
        optimizer: Optimizer to use. lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size` images.
        lr_batch_size: Global batch for which `lr` is stated. If empty, `lr` is for whatever batch
            is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Lowest learning rate of the cosine, one_cycle and cyclic schedules.
        schedule: Shape of the learning rate schedule after the warm-up.
        warmup_epochs: Length of the linear warm-up at the start. It counts as part of `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or period of the step schedule. If empty, it is all epochs
            after the warm-up.
        decay_rate: Factor of the exponential, step and multi_step schedules; power of the
            polynomial schedule.
        decay_milestones: Epochs after the warm-up at which multi_step lowers the learning rate.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Number of cosines, one after another, or of periods of the cyclic schedule.
        cycle_decay: Factor on the peak learning rate from one cosine to the next.
        betas: Decay rates of the optimizer's moving averages. If empty, they are the optimizer's
            own: (0.9, 0.999) for adamw, adam, nadam and lamb.
        eps: Epsilon of the adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Use Nesterov momentum with sgd.
        weight_decay: Weight decay. It is decoupled in adamw, lion, lamb and adan, and added to the
            gradient in the other optimizers.
        weight_decay_filter: What is exempt from weight decay: norms, biases, GRN and the mask token
            (norm_and_bias), only norms and GRN (auto), or nothing (disable).
        layer_decay: Factor on the learning rate from each layer to the one below it, from the head
            (1) down to the stem.
        layer_decay_form: What counts as a layer: one block (single), a group of blocks (group,
            which the paper uses for base and large), or a stage (stage, which the official
            segmentation code uses).
        clip_norm: Maximum of the gradient's global norm. A larger gradient is scaled down to it.
        loss_scale: Factor on the loss in float16 at the start. It is halved on overflow and doubled
            after 2000 steps without one.
        global_batch: Number of images in one step, over all ranks. `accumulate` follows from it;
            with batch_size auto, both are chosen so as to keep it. If empty, it is batch_size x
            accumulate x ranks.
        accumulate: Number of batches whose gradients make up one step.
        loss: Loss function: cross entropy over a softmax (ce), binary cross entropy (bce),
            asymmetric loss (asl_single_label, asl_multi_label), or Jensen-Shannon divergence (jsd,
            with aug_splits 3). With several labels per image, it is bce or asl_multi_label.
        pos_weight: With several labels per image: the weight of a class in the loss of images that
            have it. balanced: images without it / images with it, at most 10.
        loss_reduction: Whether ce and bce take the mean or the sum over the batch.
        class_weights: Weight of an image in the loss, by its class: in inverse proportion to the
            number of training images (balanced), to their effective number (effective, with
            `class_weights_beta`), or as in a table (other classes have 1). The weights are scaled
            to a mean of 1 over the images.
        class_weights_beta: beta of the effective number of n images, (1 - beta^n) / (1 - beta).
            Near 0, all weights are equal; near 1, they are balanced.
        sampling: How often the images of a class are drawn. natural: each image once in an epoch.
            balanced: every class equally often. sqrt: in proportion to the square root of the
            number of its images. A number from 0 to 1: to this power of it. An epoch keeps its
            length.
        logit_adjustment: tau: the loss adds tau times the logarithm of the class frequencies to the
            logits, so that the network itself need not prefer frequent classes. 1 makes up for all
            of it. 0: off.
        label_smoothing: Share of the target that is spread evenly over all classes.
        ema: Keep an exponential moving average of the weights, and evaluate that average.
        ema_decay: Decay of the moving average at each step.
        ema_form: Decay of the moving average after t steps. warmup: min(decay, (1 + t) / (10 + t)).
            mindcv: decay * (1 - exp(-t / 2000)). constant: decay.
        teacher: Model to learn from: a run folder, a weights file of any known format, OWNER/NAME
            on the Hugging Face Hub, a name that `models --weights` lists, or an exported artifact.
            It sees the same crops and mixtures as the model that learns (docs/how-to/distil.md).
        distill: What to learn from the teacher: its soft labels, which needs a teacher of the same
            classes; its pooled features, through a linear layer that is not part of the result; or
            both. auto: soft if the teacher names the classes of the data, otherwise features.
        distill_weight: Weight of what the teacher says in the loss.
        distill_temperature: Number by which all logits are divided before teacher and student are
            compared.
        task_weight: Weight of the loss without the teacher. If empty, it is 0 with soft labels
            (labels do not count then, as in Beyer et al. 2022), and otherwise 1.
        unlabelled: Folder of further training images. Labels are not read; the teacher alone says
            what is learned from them.
        classes: Table of the classes in label maps: CSV, text or JSON with an id, a name, and
            perhaps a colour each. If empty, one that lies in data_dir under a usual name is used,
            such as classes.csv.
        ignore_values: Values in label maps that stand for no class: they teach nothing and are not
            measured. If empty, it is 255, unless that is a class.
        reduce_zero_label: Ignore 0 in label maps, so that the first class is 1, as in ADE20K.
        scale_jitter: Random factor on the size of an image, minimum and maximum. At 1, an image
            covers `image_size` (segmentation) or lies inside it (detection).
        max_class_share: Crops of which one class fills a larger share are drawn again, up to ten
            times. 1: no limit.
        photometric: Probability of each of four changes of colours: brightness, contrast,
            saturation and hue (0.5 in the official segmentation recipes).
        head_channels: Number of channels in the head of a segmentor.
        head_norm: Norm in the head of a segmentor: over the batch (batch; on several CUDA ranks,
            over the batches of all), or over each image (group), which suits batches of one to four
            images.
        auxiliary_weight: Weight of the loss of an auxiliary head, which a segmentor has in training
            only. 0: no such head.
        slide: Evaluate a segmentor on overlapping windows of `image_size`, which move by two thirds
            of it, instead of on whole images.
        test_scales: Factors on the size of evaluation images. The probabilities of all sizes are
            averaged.
        test_flip: Also evaluate every image mirrored, and average the probabilities.
        annotations: Format of the annotations of objects: COCO JSON, Pascal VOC or YOLO. auto: the
            first of COCO, YOLO and Pascal VOC that is there.
        masks: Whether a detector learns masks. auto: if the objects have some.
        fpn_channels: Number of channels in the feature pyramid and the mask head of a detector.
        finest_stride: Stride of the finest level on which a detector looks for objects. 8 takes a
            fraction of the time, and misses objects of few pixels.
        anchor_scale: Side of a detector's anchors, over the stride of their level.
        box_dim: Width of the two layers of a detector's box head.
        proposals: Number of regions in an image that a detector looks at more closely.
        rois: Number of regions in an image that the heads of a detector are trained on.
        max_detections: The most objects that a detector finds in an image.
        soft_nms: Lower the scores of objects that overlap with better ones of their class (linear
            soft-NMS), instead of dropping them.

    Returns:
        The run. With `show_images`, it has no folder.
    """

def validate(
    run: str | Path | None = None,
    *,
    config: str | Path | None = None,
    prior: Literal["trained", "natural", "balanced"] | float = "trained",
    coverage: float | None = None,
    tta: Literal["none", "flip", "scales"] = "none",
    answers: str | Path = "",
    sizes: tuple[int, ...] = (),
    json: bool = False,
    task: Literal["classification", "segmentation", "detection"] = "classification",
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    mindcv_files: bool = False,
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    data_wait_s: float = 300.0,
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
    shard_cache_gb: float = 20.0,
    image_size: int | tuple[int, int] | Literal["auto"] = 224,
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
    classes: str | Path = "",
    ignore_values: tuple[int, ...] | None = None,
    reduce_zero_label: bool = False,
    slide: bool = False,
    test_scales: tuple[float, ...] = (1.0,),
    test_flip: bool = False,
    annotations: Literal["auto", "coco", "voc", "yolo"] = "auto",
) -> AnyEvaluation:
    """Evaluate a model on labelled or annotated images, print a table and write a report.

    The recipe of a run says which data are used and how they are prepared. An artifact prepares
    images in its own way, and uses the data of the run that it lies in. Knobs such as data_dir
    replace parts of that. Every image is counted exactly once, on any number of ranks. The main
    figures of a classifier have 95 % intervals. With `coverage`, what `predict` says of unknown
    images is fitted, stored beside the weights, and tested on images that it was not fitted on.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        config: Recipe: a YAML file, or a name that `convnextv2 recipes` lists.
        prior: Frequencies of the classes for which probabilities hold: as training left them
            (trained), those of the training images (natural), or equal ones, which finds more of
            the rare classes (balanced). A number tau: subtract tau times the logarithm of the
            trained frequencies from the logits (1 is balanced).
        coverage: Share of images for which the right class is to be among those that cannot be
            excluded, for example 0.9. What predict says of unknown images is fitted on half of the
            images, unless that was done before, and tested on the others.
        tta: Average a classifier's probabilities over several views of each image: the image and
            its mirror image (flip), or both at 1, 1.25 and 1.5 times the size (scales).
        answers: File with several right classes for each image, as JSON or CSV. The share of images
            whose most probable class is one of them is measured too.
        sizes: Also measure a classifier at these image sizes.
        json: Print the answer as JSON, for use by other programs.
        task: What is learned: a class or labels for each image (classification), a class for each
            pixel (segmentation, docs/how-to/segmentation.md), or boxes and masks of objects
            (detection).
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        distribute: Use the ranks that torchrun, mpirun or SLURM started. With auto, they are used
            if there are any.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        val_precision: Arithmetic of the evaluation. same: that of `precision`.
        mindcv_files: Also write MindCV's files: result.log, and MindSpore checkpoints under
            MindCV's names.
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        data_wait_s: How long to wait for images while their file server or folder is unavailable.
            0: do not wait.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.
        image_size: Side of the square images, or their height and width. With `time`, auto takes
            the largest size at which 20 epochs fit.
        in_channels: Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of
            bands in the files (docs/how-to/preprocessing.md).
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        interpolation: Interpolation with which images are resized.
        antialias: Average over the source pixels when an image is reduced. If empty, `eval_preset`
            decides: all presets do except mindcv.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: In evaluation, the short side is resized to image_size / crop_pct before the
            centre crop.
        mean: Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if
            any value of mean or std is above 1).
        std: Standard deviation of each channel, on the scale of `mean`.
        model: Name of the network: convnextv2_ and atto, femto, pico, nano, tiny, small, base,
            large, xlarge or huge; or 'custom', with `depths` and `dims`.
        depths: Number of blocks in each of the four stages, for model: custom.
        dims: Number of channels in each of the four stages, for model: custom.
        num_classes: Number of classes. If empty, it is the number of classes in the data.
        init: Weights to start from: a run folder, a weights file of any known format, OWNER/NAME on
            the Hugging Face Hub, or a name that `models --weights` lists. 'pretrained' takes public
            weights of the model's size whose licence allows commercial use.
        ema: Keep an exponential moving average of the weights, and evaluate that average.
        classes: Table of the classes in label maps: CSV, text or JSON with an id, a name, and
            perhaps a colour each. If empty, one that lies in data_dir under a usual name is used,
            such as classes.csv.
        ignore_values: Values in label maps that stand for no class: they teach nothing and are not
            measured. If empty, it is 255, unless that is a class.
        reduce_zero_label: Ignore 0 in label maps, so that the first class is 1, as in ADE20K.
        slide: Evaluate a segmentor on overlapping windows of `image_size`, which move by two thirds
            of it, instead of on whole images.
        test_scales: Factors on the size of evaluation images. The probabilities of all sizes are
            averaged.
        test_flip: Also evaluate every image mirrored, and average the probabilities.
        annotations: Format of the annotations of objects: COCO JSON, Pascal VOC or YOLO. auto: the
            first of COCO, YOLO and Pascal VOC that is there.

    Returns:
        The figures.
    """

def compare(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "comparison.html",
    json: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
    shard_cache_gb: float = 20.0,
) -> Path:
    """Compare runs: accuracy image by image, learning curves, classes, settings and cost.

    All classifiers are measured on the same images: the validation images of the first run, or
    those that `data_dir` names. Pre-training runs are compared by their curves, settings and cost.

    Args:
        runs: Run folders, weights files or artifacts, two or more.
        out: Page to write.
        json: Print the answer as JSON, for use by other programs.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.

    Returns:
        The page.

    Raises:
        RecipeError: There are fewer than two runs, or too many, or `out` cannot be written.
        CheckpointError: The runs cannot be compared.
    """

def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top_k: int = 5,
    threshold: float = 0.5,
    prior: Literal["trained", "natural", "balanced"] | float = "trained",
    out: str | Path = "",
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
    """Print the most probable classes of images, or their labels, and return them.

    They are written to a file, too, if `out` is given. With `json`, one JSON object for each image
    is printed while images are classified. The file also names the images that could not be read.
    Of a segmentor, the share of every class in the pixels is printed, and `out` is a folder for
    overlays and maps of class indices. Of a detector, the objects are printed, and `out` is a
    folder for pictures and COCO's JSON.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        images: Image files, or folders of them.
        top_k: Number of classes to show, if an image has one class.
        threshold: For detectors: the lowest score of the objects that are named and drawn.
        prior: Frequencies of the classes for which probabilities hold: as training left them
            (trained), those of the training images (natural), or equal ones, which finds more of
            the rare classes (balanced). A number tau: subtract tau times the logarithm of the
            trained frequencies from the logits (1 is balanced).
        out: Also write the predictions to this file, whose ending decides the format: .csv, .json,
            or .jsonl for one JSON object a line. For segmentors and detectors, it is a folder for
            pictures and data.
        json: Print one JSON object for each image, for use by other programs.
        server: Ask the server at this address instead. RUN is then the name of a model on that
            server.
        api_key: API key of the server. If empty, the environment variable CONVNEXTV2_API_KEY is
            used.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.

    Returns:
        A list of `{"image": name, "predictions": [{"class": name, "prob": probability}, ...]}`. If
        the model was fitted with a coverage, there are also `"possible": [name, ...]`, `"foreign"`
        and `"foreignness"`. Of a model that gives an image any number of labels, it is a list of
        `{"image": name, "labels": [{"name": name, "score": probability, "threshold": threshold},
        ...], "scores": {name: probability}}`. Of a segmentor, it is a list of `{"image": name,
        "height": px, "width": px, "classes": [{"class": name, "share": share}, ...]}`, with
        "overlay" and "index" if `out` is given. Of a detector, it is a list of `{"image": name,
        "width": px, "height": px, "objects": [{"class": name, "score": score, "box": [x0, y0, x1,
        y1], "mask": code}, ...]}`.
    """

def embed(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "embeddings.npy",
    normalize: Literal["none", "l2"] = "none",
    labels: Literal["none", "folder", "table"] = "none",
    json: bool = False,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    bad_images: Literal["fail", "skip", "quarantine"] = "skip",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
) -> Path:
    """Write the embeddings of images: the pooled features after the final norm.

    Images have the order in which they are given, and those in a folder are sorted by path, however
    many workers read them. An image that cannot be read has no row. It is named on stderr and in a
    file beside the embeddings, unless `bad_images` is "fail".

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        images: Image files, or folders of them, or one table that lists images.
        out: File to write, whose ending decides the format: .npy with the paths in a CSV file
            beside it, .csv, or .parquet.
        normalize: Whether to divide each embedding by its Euclidean norm (l2).
        labels: Where labels come from: nowhere, the name of the folder that an image lies in, or
            the table.
        json: Print the answer as JSON, for use by other programs.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.

    Returns:
        The file with the embeddings.

    Raises:
        RecipeError: `out` cannot be used, or there are no labels where they were asked for.
        DataError: There are no images, or none of them can be read.
        ArtifactError: The artifact has no embeddings.
        MissingPackageError: Parquet was asked for, and pyarrow is not installed.
    """

def probe(
    run: str | Path,
    *,
    k: int = 20,
    json: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "skip",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    workers: int | Literal["auto"] = "auto",
    shard_cache_gb: float = 20.0,
) -> Probed:
    """Measure frozen features: by nearest neighbours, and by a linear probe.

    The encoder is not trained, so this takes seconds where fine-tuning takes hours. It works for
    pre-training runs, classifiers, and weights of any known format.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        k: Number of nearest neighbours that vote.
        json: Print the answer as JSON, for use by other programs.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.

    Returns:
        The accuracies.

    Raises:
        RecipeError: No images are named.
        DataError: There are no labelled images, or no validation images apart from them.
    """

def audit(
    data: str | Path,
    *,
    task: Literal["auto", "classification", "segmentation", "detection"] = "auto",
    in_channels: int | None = None,
    init: str | Path = "",
    wrong_labels: Literal["drop", "keep", "change"] = "drop",
    out: str | Path = "audit",
    json: bool = False,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 64,
    value_range: tuple[float, float] | None = None,
    classes: str | Path = "",
    ignore_values: tuple[int, ...] | None = None,
    reduce_zero_label: bool = False,
    annotations: Literal["auto", "coco", "voc", "yolo"] = "auto",
) -> AuditReport:
    """Audit image data: bad files, copies, leaks between splits, odd images, wrong labels.

    Data of every task are read as `train` reads them. They are never changed: the folder `out` gets
    audit.json and audit.csv with every finding, contact sheets, a page (audit.html), and corrected
    data that `train` takes.

    Args:
        data: Folder of images, table, or annotated data of any task, as train takes them.
        task: What the data are for. auto: detection if there are boxes, segmentation if there are
            label maps, else classification.
        in_channels: Number of channels that the network takes. If empty, it is 3, or the number of
            channels of the first image.
        init: Model whose features are used to find wrong labels: a run, weights of any format, or
            an artifact. A quick descriptor of the images themselves is used if this is empty, or if
            it tells the classes apart better.
        wrong_labels: What the corrected data do with training images whose labels are probably
            wrong: leave them out (drop), keep them, or change the labels to the suggested ones.
        out: Folder to write.
        json: Print the answer as JSON, for use by other programs.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        classes: Table of the classes in label maps: CSV, text or JSON with an id, a name, and
            perhaps a colour each. If empty, one that lies in data_dir under a usual name is used,
            such as classes.csv.
        ignore_values: Values in label maps that stand for no class: they teach nothing and are not
            measured. If empty, it is 255, unless that is a class.
        reduce_zero_label: Ignore 0 in label maps, so that the first class is 1, as in ADE20K.
        annotations: Format of the annotations of objects: COCO JSON, Pascal VOC or YOLO. auto: the
            first of COCO, YOLO and Pascal VOC that is there.

    Returns:
        What was found.

    Raises:
        DataError: There are no images, or their annotations cannot be used at all.
        RecipeError: An option has a wrong value, or `out` cannot be written.
        RunError: Another process is writing `out`.
    """

def explain(
    run: str | Path,
    images: str | Path | Sequence[str | Path] = (),
    *,
    out: str | Path = "explanation.html",
    target: str | Path = "",
    against: str | Path = "",
    patch_px: int | None = None,
    step_px: int | None = None,
    pictures: str | Path = "",
    mistakes: int = 24,
    neighbours: int = 2,
    json: bool = False,
    seed: int = 42,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    kernels: Literal["auto", "native", "plain"] = "auto",
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "skip",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 32,
    workers: int | Literal["auto"] = "auto",
    shard_cache_gb: float = 20.0,
) -> Path:
    """Write a page that explains what a model answers.

    With images, it shows class activation maps and occlusion maps. Without images, it shows a map
    of the embeddings of labelled images, the most confident mistakes, and the training images that
    are nearest to each. For a pre-training run, it shows the map alone.

    Args:
        run: Run folder, checkpoint or weights file.
        images: Image files, or folders of them, to explain one by one. Without any, the labelled
            images of the run or of data_dir are explained as a whole.
        out: Page to write.
        target: Class to explain. If empty, the most probable one of each image.
        against: Class to compare with: the maps then show what speaks for the target and against
            this class.
        patch_px: Side of the square that covers a part of the image, as the network sees it. If
            empty, a seventh of its shorter side.
        step_px: Distance from one square to the next. If empty, half of its side.
        pictures: Folder for the maps as PNG files as well. If empty, none.
        mistakes: Number of mistakes to show.
        neighbours: Number of training images to show beside each mistake.
        json: Print the answer as JSON, for use by other programs.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.

    Returns:
        The page.

    Raises:
        RecipeError: A class is not known, or options do not go together.
        CheckpointError: The weights are of another kind.
        DataError: There are no images.
    """

def pack_data(
    data: str | Path,
    shards: str | Path,
    *,
    images_per_shard: int = 5000,
    labelled: bool = True,
    json: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
) -> Packed:
    """Pack a folder or table of images into tar files in WebDataset's format, with an index.

    The files of the images are packed as they are. A run on the shards is the run on the folder:
    order, classes, splits and pixels are the same. Packing that was stopped or killed goes on with
    the next shard when the command is repeated, and writes the same bytes as if it had not been.

    Args:
        data: Folder of images, or a table of them.
        shards: Folder to write the tar files to.
        images_per_shard: Number of images in a tar file; the last one has the rest.
        labelled: Pack the classes too. Without them, pretrain can use the shards, and train cannot.
        json: Print the answer as JSON, for use by other programs.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.

    Returns:
        How many shards and images there are.

    Raises:
        DataError: There are no images, or one of them cannot be read.
        RecipeError: `shards` lies in the data.
        RunError: `shards` holds other shards, or is being written by another process.
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
    coverage: float | None = None,
    prior: Literal["trained", "natural", "balanced"] | float = "trained",
    images: int = 512,
    seconds: float = 5.0,
    out: str | Path = "",
    layout: Literal["folder", "triton", "ovms"] = "folder",
    name: str | Path = "",
    overwrite: bool = False,
    json: bool = False,
    seed: int = 42,
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
    images_dir: str | Path = "",
    image_suffix: str | Path = "",
    val_fraction: float = 0.1,
    bad_images: Literal["fail", "skip", "quarantine"] = "fail",
    max_image_pixels: int = 178956970,
    batch_size: int | Literal["auto"] = 16,
    workers: int | Literal["auto"] = "auto",
    shard_cache_gb: float = 20.0,
) -> Path:
    """Write an artifact: the model in another format, with everything that is needed to use it.

    The artifact holds the preprocessing, the class names, and a certificate that compares it with
    the PyTorch model. If an artifact is given in place of a run, it is put into another layout.

    `data_dir` names images to measure on in place of those of the run. `batch_size` is the batch in
    the comparison of speeds.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        format: Format of the artifact.
        precision: Arithmetic of the artifact. GRN and layer norm keep float32 statistics in every
            precision.
        outputs: What the model returns: logits, embedding and explanation map (classifier), the
            embedding alone (features), or the feature maps of the four stages (backbone).
        input: What the model takes: normalised images, or uint8 pixels. With pixels it returns
            probabilities instead of logits.
        dynamic_size: Accept images of any size that is a multiple of the total stride.
        calibrate: Fit the temperature of the probabilities to the validation images.
        coverage: Share of images for which the right class is to be among those that cannot be
            excluded, for example 0.9. What the artifact then says of unknown images is fitted on
            the validation images.
        prior: Frequencies of the classes for which probabilities hold: as training left them
            (trained), those of the training images (natural), or equal ones, which finds more of
            the rare classes (balanced). A number tau: subtract tau times the logarithm of the
            trained frequencies from the logits (1 is balanced).
        images: Measure on at most this many validation images, spread evenly.
        seconds: Minimum time for the comparison of speeds.
        out: Folder to write. If empty, it is artifacts/FORMAT-PRECISION in the run.
        layout: Write a plain folder, or a model repository for Triton or OpenVINO Model Server
            (ovms) in `out`.
        name: Name of the model in a model repository. If empty, it is the name of the run.
        overwrite: Replace an artifact that already exists.
        json: Print the answer as JSON, for use by other programs.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.

    Returns:
        The artifact's folder.
    """

def serve(
    models: str | Path | Sequence[str | Path],
    *,
    max_body_mb: float = 32.0,
    max_bodies_mb: float = 512.0,
    max_images: int = 64,
    max_image_pixels: int = 64000000,
    max_answer_mb: float = 16.0,
    max_map_pixels: int = 4000000,
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

    On SIGTERM, the server finishes the requests that it has accepted. On SIGHUP, it reloads what
    has changed.

    Args:
        models: [NAME[@VERSION]=]PATH of a run, weights file or artifact, or OWNER/NAME on the
            Hugging Face Hub.
        max_body_mb: Maximum request body.
        max_bodies_mb: Maximum of all request bodies together that are being received or answered.
        max_images: Maximum number of images in a request.
        max_image_pixels: Largest image to decode, judged by its header. Twice as many pixels are
            decoded at once.
        max_answer_mb: Largest answer of a detector or a segmentor.
        max_map_pixels: Largest mask or map of classes in an answer. Those of larger images are
            reduced.
        max_queue: Maximum number of images that wait, over all requests. Further requests are
            refused.
        max_batch: Maximum number of images that the model scores at once.
        max_delay_ms: Time that the first image of a batch waits for others while the model is idle.
        deadline_s: Maximum time from the last byte of a request to its answer.
        read_timeout_s: Maximum time to receive a request's head, to receive its body, and for the
            client to read the answer.
        drain_s: Time to accept requests after SIGTERM, until load balancers stop sending them.
        host: Address to listen on. 0.0.0.0 listens on all addresses.
        port: Port to listen on. 0 chooses a free port.
        api_key: API key that clients must send. If empty, the environment variable
            CONVNEXTV2_API_KEY is used.
        api_key_file: File with further API keys, one on each line. SIGHUP makes the server read it
            again.
        cors_origins: Origins whose web pages may call the server, separated by commas.
        access_log: Which requests to log: failed ones, all, all as JSON (json), or none (off).
        ssl_certfile: Certificate for HTTPS, in PEM format. SIGHUP makes the server read it again.
        ssl_keyfile: Private key of the certificate, not encrypted.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).

    Raises:
        RecipeError: An option cannot be used.
        DeviceError: The port is taken, or a model does not run.
        MissingPackageError: A package that serving needs is not installed.
    """

def convert(
    weights: str | Path,
    *,
    to: Literal[
        "official", "timm", "transformers", "mmpretrain", "mindcv", "convnextv2", "official-v1",
        "timm-v1", "transformers-v1", "mmpretrain-v1", "mindcv-v1", "torchvision-v1", "dinov3-v1",
    ],
    out: str | Path,
    ema: bool = False,
    allow_drift: bool = False,
    json: bool = False,
) -> Path:
    """Write weights in the format of another library.

    Args:
        weights: Run folder, weights file, folder from the Hub, or OWNER/NAME on the Hugging Face
            Hub.
        to: Format to write. Names that end in -v1 mean a ConvNeXt of the first version, which needs
            a GRN that is still zero.
        out: File to write if the path has a suffix; otherwise a folder for the Hub.
        ema: Convert the averaged weights of a training checkpoint.
        allow_drift: Also write weights that the target library would compute slightly differently.
        json: Print the answer as JSON, for use by other programs.

    Returns:
        The path that was written.
    """

def inspect(
    weights: str | Path,
    *,
    json: bool = False,
) -> Weights:
    """Print a description of weights of any known format.

    The lines name the file, its size, the network, the preparation of images, further content and
    the licence.

    Args:
        weights: Run folder, checkpoint, weights file or artifact.
        json: Print the answer as JSON, for use by other programs.

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
    """Print and return the most probable classes of one image.

    The image is prepared as the weights say. MindCV's scripts pass the same knobs to every program.
    Those that have no effect here are named in one line.

    Args:
        image_path: Image to classify.
        ckpt_path: Weights of any known format, or a run folder.
        model: Name of the model. It is only compared with what the weights say.
        top_k: Number of classes to show.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        workers: Number of processes that decode and augment images. 0: the main process does it.

    Returns:
        Class name -> probability, the most probable class first. If an image may have any number of
        labels, these are the labels that it has.
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

    For each image, it shows the input, what the encoder saw, and the reconstruction with the
    visible tiles pasted back. The suffix of the picture's name decides its format.

    Args:
        run: Run folder, checkpoint, weights file or artifact.
        images: Image files, or folders of them.
        out: Image file to write.
        count: Show at most this many images, spread evenly.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        max_image_pixels: Size of the largest image that is decoded.
        mask_ratio: Share of the tiles that is hidden.

    Returns:
        The path of the picture.

    Raises:
        RecipeError: `out` cannot be used.
        DataError: None of the images can be read, or one cannot and `bad_images` is "fail".
        CheckpointError: The weights are not those of a pre-training run.
    """

def replay(
    run: str | Path,
    *,
    step: int | None = None,
    json: bool = False,
) -> list[Replayed]:
    """Run a step that was kept in bad_steps/ again, image by image.

    The images are those that the network got, cropped and augmented. Images are not mixed, and
    masks are drawn anew for each image. A step that failed only because of its mixture may
    therefore be finite here.

    Args:
        run: Run folder.
        step: Step to show. If empty, it is the last one that was kept.
        json: Print the answer as JSON, for use by other programs.

    Returns:
        Every image of the step on all ranks, the worst first.

    Raises:
        RunError: The run kept no such step.
        CheckpointError: The step that was kept cannot be read.
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
    """Measure the training images of a folder or table, and print and return what a recipe needs.

    Labels are not needed. Pixels are measured as the files are decoded, before they are resized.

    Args:
        data: Folder of images, or a table. Labels are not needed.
        in_channels: Number of channels that the network takes. If empty, it is 3, or the number of
            channels of the first image.
        max_images: Measure at most this many images, chosen at random but always in the same way.
            If empty, all are measured.
        json: Print the answer as JSON, for use by other programs.
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        train_split: Subfolder with the training images.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        max_image_pixels: Size of the largest image that is decoded.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).

    Returns:
        images, in_channels, mean, std and value_range (None for 8-bit files). Further entries hold
        sizes, bands, types, the minimum, maximum and percentiles of the values, the numbers of NaN
        and no-data values, and the files that were left out.

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
    images_per_second: float | None = None,
    ranks: int | None = None,
    link_gbit: float = 100.0,
    json: bool = False,
    out: str | Path = "",
    resume: bool | Literal["auto"] = False,
    resume_allow: tuple[str, ...] | None = None,
    overwrite: bool = False,
    task: Literal["classification", "segmentation", "detection"] = "classification",
    seed: int = 42,
    device: str | Path = "auto",
    distribute: bool | Literal["auto"] = "auto",
    elastic: bool = False,
    shard: bool = False,
    rank_timeout_s: int = 600,
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    val_precision: Literal["same", "auto", "float32", "bfloat16", "float16"] = "same",
    val_while_train: bool = True,
    val_every_epochs: int = 1,
    best_by: Literal["top1", "balanced_accuracy", "macro_f1", "loss"] = "top1",
    patience: int | None = None,
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
    loggers: tuple[str, ...] | None = None,
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
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
    shard_cache_gb: float = 20.0,
    cache_mb: int = 0,
    image_size: int | tuple[int, int] | Literal["auto"] = 224,
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
    block: Literal["v2", "v2_without_grn", "v1"] = "v2",
    gelu: Literal["exact", "tanh"] = "exact",
    grn_scope: Literal["image", "batch"] = "image",
    norm_eps: float = 1e-06,
    inner_eps: float = 1e-06,
    drop_path_rate: float = 0.0,
    head_init_scale: float = 1.0,
    grad_checkpoint: bool = False,
    init: str | Path = "",
    resume_init: bool = False,
    resume_opt: bool = False,
    freeze: Literal["none", "stem", "stages1", "stages2", "stages3", "encoder"] = "none",
    freeze_grn: bool = False,
    epochs: int = 100,
    time: str | Path = "",
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan",
    ] = "adamw",
    lr: float = 0.001,
    lr_batch_size: int | None = None,
    scale_lr: bool = False,
    min_lr: float = 1e-06,
    schedule: Literal[
        "cosine", "constant", "exponential", "step", "multi_step", "polynomial", "one_cycle",
        "cyclic",
    ] = "cosine",
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
    layer_decay_form: Literal["single", "group", "stage"] = "single",
    clip_norm: float | None = None,
    loss_scale: float = 65536.0,
    global_batch: int | None = None,
    accumulate: int = 1,
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = "ce",
    pos_weight: Literal["none", "balanced"] = "none",
    loss_reduction: Literal["mean", "sum"] = "mean",
    class_weights: Literal["none", "balanced", "effective"] | dict[str, float] = "none",
    class_weights_beta: float = 0.999,
    sampling: Literal["natural", "balanced", "sqrt"] | float = "natural",
    logit_adjustment: float = 0.0,
    label_smoothing: float = 0.0,
    ema: bool = False,
    ema_decay: float = 0.9999,
    ema_form: Literal["warmup", "mindcv", "constant"] = "warmup",
    teacher: str | Path = "",
    distill: Literal["auto", "soft", "features", "both"] = "auto",
    distill_weight: float = 1.0,
    distill_temperature: float = 4.0,
    task_weight: float | None = None,
    unlabelled: str | Path = "",
    classes: str | Path = "",
    ignore_values: tuple[int, ...] | None = None,
    reduce_zero_label: bool = False,
    scale_jitter: tuple[float, float] = (0.5, 2.0),
    max_class_share: float = 0.75,
    photometric: float = 0.0,
    head_channels: int = 512,
    head_norm: Literal["batch", "group"] = "batch",
    auxiliary_weight: float = 0.4,
    slide: bool = False,
    test_scales: tuple[float, ...] = (1.0,),
    test_flip: bool = False,
    annotations: Literal["auto", "coco", "voc", "yolo"] = "auto",
    masks: Literal["auto", "on", "off"] = "auto",
    fpn_channels: int = 256,
    finest_stride: Literal[4, 8] = 4,
    anchor_scale: float = 8.0,
    box_dim: int = 1024,
    proposals: int = 1000,
    rois: int = 512,
    max_detections: int = 100,
    soft_nms: bool = False,
    mask_ratio: float = 0.6,
    tile: int | None = None,
    norm_target: bool = True,
    decoder_dim: int = 512,
    decoder_depth: int = 1,
    health_every_epochs: int | None = None,
    probe_every_epochs: int | None = None,
    probe_dir: str | Path = "",
) -> dict[str, Any]:
    """Run the first steps of a recipe, and say what the whole run would cost.

    The steps run in a process of their own, in a temporary folder. The first step does not count,
    because it may compile. The memory is that of the host. If the pace of one device is given,
    nothing is run. With `ranks`, the time on a cluster follows from the pace and the speed of its
    links, see `training.cluster`.

    Args:
        verb: train or pretrain. If empty, it is the verb that the recipe is for.
        config: Recipe: a YAML file, or a name that `convnextv2 recipes` lists.
        probe_seconds: How long to measure.
        images_per_second: Training throughput of one device, if you know it. Nothing is measured
            then.
        ranks: Also plan for this many devices, each with the throughput of one; see link_gbit.
        link_gbit: With ranks: bandwidth of the slowest link between two devices, in each direction
            at the same time.
        json: Print the answer as JSON, for use by other programs.
        out: Run folder to write. If empty, it is runs/VERB-MODEL.
        resume: Continue the run in `out` from its last checkpoint, up to `epochs`. With auto, a run
            that has no checkpoint yet is started, so that one command serves for the first start
            and for every later one.
        resume_allow: Names of what may differ from the run that is resumed: knobs (such as
            precision), images, classes or ranks. Any other difference that changes what is learned
            is refused.
        overwrite: Delete the contents of `out` and start again.
        task: What is learned: a class or labels for each image (classification), a class for each
            pixel (segmentation, docs/how-to/segmentation.md), or boxes and masks of objects
            (detection).
        seed: Seed of all random choices. Each choice follows from the seed and from the position in
            the run.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        distribute: Use the ranks that torchrun, mpirun or SLURM started. With auto, they are used
            if there are any.
        elastic: Give the same weights bit for bit on any number of ranks. A step then has
            accumulate x ranks batches, which must be a power of two, and their gradients are added
            in a fixed order.
        shard: Share weights, gradients, moments and the moving average among the ranks, so that
            each holds only its part (FSDP2). For models that do not fit into the memory of one
            device; docs/how-to/sharding.md.
        rank_timeout_s: How long to wait for a rank that does not answer before the job ends.
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        compile: Compile the training step with torch.compile. This needs a compiler, and the first
            step is slow.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        val_precision: Arithmetic of the evaluation. same: that of `precision`.
        val_while_train: Evaluate on the validation images during training.
        val_every_epochs: Number of epochs between evaluations. The last epoch is always evaluated.
        best_by: Figure of the validation images that decides which weights are best: accuracy
            (top1), mean recall over the classes (balanced_accuracy), mean F1 over the classes
            (macro_f1), or the lowest loss.
        patience: Stop after this many epochs without a better `best_by`. If empty, all `epochs` are
            trained. With a cosine schedule most of the gain comes late, as the learning rate falls,
            so a small number stops too early.
        save_every_epochs: Number of epochs between checkpoints. The last epoch is always saved.
        save_every_steps: Also save a checkpoint each time this many steps have passed.
        save_every_minutes: Also save a checkpoint when the last one is this old.
        async_save: Write checkpoints in the background while training goes on. This takes memory
            for a copy of one.
        bad_steps: What to do with a step whose loss or gradient is not finite: stop the run, or
            skip the step, up to 10 in a row. Its batch is kept in bad_steps/ for `replay`.
        keep_checkpoints: Number of checkpoints to keep in addition to best/. `keep_policy` chooses
            them.
        keep_policy: Which checkpoints to keep: latest_k (the newest), top_k (the best by `best_by`,
            and the newest), or all.
        mindcv_files: Also write MindCV's files: result.log, and MindSpore checkpoints under
            MindCV's names.
        log_every_steps: Number of steps between log lines.
        tensorboard: Write TensorBoard events into the run folder.
        loggers: Loggers of other projects to write to as well: wandb, mlflow, trackio. They never
            stop a run.
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        num_samples: Use at most this many training images. They are chosen at random, but always in
            the same way.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        data_wait_s: How long to wait for images while their file server or folder is unavailable.
            0: do not wait.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Drop the last, incomplete batch of each training epoch.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.
        cache_mb: Memory for decoded training images, shared by the workers of a rank. Images that
            do not fit are decoded each time. With a cache, JPEG files are decoded at full
            resolution.
        image_size: Side of the square images, or their height and width. With `time`, auto takes
            the largest size at which 20 epochs fit.
        in_channels: Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of
            bands in the files (docs/how-to/preprocessing.md).
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        scale: Share of the image's area that a random crop keeps: minimum and maximum.
        ratio: Aspect ratio (width / height) of a random crop: minimum and maximum.
        crop_padding: Pad each side with this many black pixels and crop back to size at a random
            place. This replaces the random resized crop. 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random changes of brightness, contrast and saturation: one number
            for all three, or one for each. A fourth number is for hue. Not used with
            `auto_augment`.
        auto_augment: Augmentation policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: Interpolation with which images are resized.
        antialias: Average over the source pixels when an image is reduced. If empty, `eval_preset`
            decides: all presets do except mindcv.
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: minimum and maximum.
        erase_ratio: Aspect ratio of the erased rectangle: minimum and maximum.
        erase_value: What fills the erased rectangle. 'random': noise from N(0, 1) for each pixel.
            Numbers (one, or one for each channel): these normalised values.
        erase_attempts: Number of attempts to place the rectangle. If all fail, the image is left as
            it is.
        mixup: Alpha of the Beta distribution of mixup. 0: off.
        cutmix: Alpha of the Beta distribution of cutmix. 0: off.
        mix_prob: Probability that mixup or cutmix is applied to a batch.
        mix_switch_prob: Probability of cutmix instead of mixup if both are on.
        aug_repeats: How often each image occurs in an epoch, augmented anew each time. The epoch
            keeps its length. 0: once.
        aug_splits: 3: each batch holds one clean and two augmented versions of every image (3 x
            batch_size images), as the jsd loss requires. 0: off.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: In evaluation, the short side is resized to image_size / crop_pct before the
            centre crop.
        mean: Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if
            any value of mean or std is above 1).
        std: Standard deviation of each channel, on the scale of `mean`.
        model: Name of the network: convnextv2_ and atto, femto, pico, nano, tiny, small, base,
            large, xlarge or huge; or 'custom', with `depths` and `dims`.
        depths: Number of blocks in each of the four stages, for model: custom.
        dims: Number of channels in each of the four stages, for model: custom.
        num_classes: Number of classes. If empty, it is the number of classes in the data.
        stem_stride: Stride of the stem: 4 for photographs, 2 or 1 for small images.
        block: Form of the blocks: those of ConvNeXt V2, the same without GRN, or those of the first
            ConvNeXt, with a layer scale and without GRN. The last two are for comparison.
        gelu: Form of GELU. Weights from MindCV need 'tanh'.
        grn_scope: What the statistics of GRN are computed over: each image, or the whole batch, as
            in the official sparse code.
        norm_eps: Epsilon of the final norm. Checkpoints of Transformers have 1e-12.
        inner_eps: Epsilon of all norms but the final one. convnext_xxlarge of timm has 1e-5.
        drop_path_rate: Stochastic depth rate of the last block. The rate grows linearly from 0 at
            the first block.
        head_init_scale: Factor on the initial weights of the head. Use 0.001 for fine-tuning.
        grad_checkpoint: Recompute activations in the backward pass, which takes less memory and
            more time.
        init: Weights to start from: a run folder, a weights file of any known format, OWNER/NAME on
            the Hugging Face Hub, or a name that `models --weights` lists. 'pretrained' takes public
            weights of the model's size whose licence allows commercial use.
        resume_init: Continue at the epoch that is recorded in the MindSpore checkpoint in `init`
            (MindCV's ckpt_path) instead of at epoch 0.
        resume_opt: Also load the state of the optimizer from the MindSpore checkpoint in `init`.
        freeze: What stays fixed: nothing, the stem, the stem and the first 1, 2 or 3 stages, or
            everything except the final norm and the head (encoder).
        freeze_grn: Do not train GRN. A start from a ConvNeXt of the first version then stays one,
            and `convert` can write it as one.
        epochs: Number of passes over the training images.
        time: Time for the whole run, such as 30m, 1h30m or 2d, in place of `epochs`. A number alone
            means minutes. The first epoch warms the learning rate up and is measured; the learning
            rate then falls along a cosine over as many epochs as fit.
        optimizer: Optimizer to use. lion, lamb and adan need the extra [optimizers].
        lr: Peak learning rate, for a global batch of `lr_batch_size` images.
        lr_batch_size: Global batch for which `lr` is stated. If empty, `lr` is for whatever batch
            is used.
        scale_lr: Multiply `lr` and `min_lr` by global batch / lr_batch_size.
        min_lr: Lowest learning rate of the cosine, one_cycle and cyclic schedules.
        schedule: Shape of the learning rate schedule after the warm-up.
        warmup_epochs: Length of the linear warm-up at the start. It counts as part of `epochs`.
        warmup_factor: Share of `lr` at the first step of the warm-up.
        decay_epochs: Length of a cosine, or period of the step schedule. If empty, it is all epochs
            after the warm-up.
        decay_rate: Factor of the exponential, step and multi_step schedules; power of the
            polynomial schedule.
        decay_milestones: Epochs after the warm-up at which multi_step lowers the learning rate.
        lr_epoch_stair: Keep the learning rate constant within an epoch.
        num_cycles: Number of cosines, one after another, or of periods of the cyclic schedule.
        cycle_decay: Factor on the peak learning rate from one cosine to the next.
        betas: Decay rates of the optimizer's moving averages. If empty, they are the optimizer's
            own: (0.9, 0.999) for adamw, adam, nadam and lamb.
        eps: Epsilon of the adaptive optimizers.
        momentum: Momentum of sgd and rmsprop.
        nesterov: Use Nesterov momentum with sgd.
        weight_decay: Weight decay. It is decoupled in adamw, lion, lamb and adan, and added to the
            gradient in the other optimizers.
        weight_decay_filter: What is exempt from weight decay: norms, biases, GRN and the mask token
            (norm_and_bias), only norms and GRN (auto), or nothing (disable).
        layer_decay: Factor on the learning rate from each layer to the one below it, from the head
            (1) down to the stem.
        layer_decay_form: What counts as a layer: one block (single), a group of blocks (group,
            which the paper uses for base and large), or a stage (stage, which the official
            segmentation code uses).
        clip_norm: Maximum of the gradient's global norm. A larger gradient is scaled down to it.
        loss_scale: Factor on the loss in float16 at the start. It is halved on overflow and doubled
            after 2000 steps without one.
        global_batch: Number of images in one step, over all ranks. `accumulate` follows from it;
            with batch_size auto, both are chosen so as to keep it. If empty, it is batch_size x
            accumulate x ranks.
        accumulate: Number of batches whose gradients make up one step.
        loss: Loss function: cross entropy over a softmax (ce), binary cross entropy (bce),
            asymmetric loss (asl_single_label, asl_multi_label), or Jensen-Shannon divergence (jsd,
            with aug_splits 3). With several labels per image, it is bce or asl_multi_label.
        pos_weight: With several labels per image: the weight of a class in the loss of images that
            have it. balanced: images without it / images with it, at most 10.
        loss_reduction: Whether ce and bce take the mean or the sum over the batch.
        class_weights: Weight of an image in the loss, by its class: in inverse proportion to the
            number of training images (balanced), to their effective number (effective, with
            `class_weights_beta`), or as in a table (other classes have 1). The weights are scaled
            to a mean of 1 over the images.
        class_weights_beta: beta of the effective number of n images, (1 - beta^n) / (1 - beta).
            Near 0, all weights are equal; near 1, they are balanced.
        sampling: How often the images of a class are drawn. natural: each image once in an epoch.
            balanced: every class equally often. sqrt: in proportion to the square root of the
            number of its images. A number from 0 to 1: to this power of it. An epoch keeps its
            length.
        logit_adjustment: tau: the loss adds tau times the logarithm of the class frequencies to the
            logits, so that the network itself need not prefer frequent classes. 1 makes up for all
            of it. 0: off.
        label_smoothing: Share of the target that is spread evenly over all classes.
        ema: Keep an exponential moving average of the weights, and evaluate that average.
        ema_decay: Decay of the moving average at each step.
        ema_form: Decay of the moving average after t steps. warmup: min(decay, (1 + t) / (10 + t)).
            mindcv: decay * (1 - exp(-t / 2000)). constant: decay.
        teacher: Model to learn from: a run folder, a weights file of any known format, OWNER/NAME
            on the Hugging Face Hub, a name that `models --weights` lists, or an exported artifact.
            It sees the same crops and mixtures as the model that learns (docs/how-to/distil.md).
        distill: What to learn from the teacher: its soft labels, which needs a teacher of the same
            classes; its pooled features, through a linear layer that is not part of the result; or
            both. auto: soft if the teacher names the classes of the data, otherwise features.
        distill_weight: Weight of what the teacher says in the loss.
        distill_temperature: Number by which all logits are divided before teacher and student are
            compared.
        task_weight: Weight of the loss without the teacher. If empty, it is 0 with soft labels
            (labels do not count then, as in Beyer et al. 2022), and otherwise 1.
        unlabelled: Folder of further training images. Labels are not read; the teacher alone says
            what is learned from them.
        classes: Table of the classes in label maps: CSV, text or JSON with an id, a name, and
            perhaps a colour each. If empty, one that lies in data_dir under a usual name is used,
            such as classes.csv.
        ignore_values: Values in label maps that stand for no class: they teach nothing and are not
            measured. If empty, it is 255, unless that is a class.
        reduce_zero_label: Ignore 0 in label maps, so that the first class is 1, as in ADE20K.
        scale_jitter: Random factor on the size of an image, minimum and maximum. At 1, an image
            covers `image_size` (segmentation) or lies inside it (detection).
        max_class_share: Crops of which one class fills a larger share are drawn again, up to ten
            times. 1: no limit.
        photometric: Probability of each of four changes of colours: brightness, contrast,
            saturation and hue (0.5 in the official segmentation recipes).
        head_channels: Number of channels in the head of a segmentor.
        head_norm: Norm in the head of a segmentor: over the batch (batch; on several CUDA ranks,
            over the batches of all), or over each image (group), which suits batches of one to four
            images.
        auxiliary_weight: Weight of the loss of an auxiliary head, which a segmentor has in training
            only. 0: no such head.
        slide: Evaluate a segmentor on overlapping windows of `image_size`, which move by two thirds
            of it, instead of on whole images.
        test_scales: Factors on the size of evaluation images. The probabilities of all sizes are
            averaged.
        test_flip: Also evaluate every image mirrored, and average the probabilities.
        annotations: Format of the annotations of objects: COCO JSON, Pascal VOC or YOLO. auto: the
            first of COCO, YOLO and Pascal VOC that is there.
        masks: Whether a detector learns masks. auto: if the objects have some.
        fpn_channels: Number of channels in the feature pyramid and the mask head of a detector.
        finest_stride: Stride of the finest level on which a detector looks for objects. 8 takes a
            fraction of the time, and misses objects of few pixels.
        anchor_scale: Side of a detector's anchors, over the stride of their level.
        box_dim: Width of the two layers of a detector's box head.
        proposals: Number of regions in an image that a detector looks at more closely.
        rois: Number of regions in an image that the heads of a detector are trained on.
        max_detections: The most objects that a detector finds in an image.
        soft_nms: Lower the scores of objects that overlap with better ones of their class (linear
            soft-NMS), instead of dropping them.
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile. If empty, it is the total stride (8 x stem_stride).
        norm_target: Normalise the pixels of each masked tile before the loss compares them.
        decoder_dim: Number of channels in the decoder.
        decoder_depth: Number of blocks in the decoder.
        health_every_epochs: Number of epochs between examinations of the features and gradients on
            a fixed set of images, which the report shows. The first and the last epoch are always
            examined then. Empty: never.
        probe_every_epochs: Number of epochs between probes of the frozen features, by nearest
            neighbours and a linear layer. The images need labels for that. The first and the last
            epoch are always probed then. Empty: never.
        probe_dir: Labelled images for `probe_every_epochs`: a folder or a table. If empty, those of
            the run.

    Returns:
        Images per second, and the memory, time and disk space of the whole run.
    """

def benchmark(
    works: str | Path | Sequence[str] = (),
    *,
    models: str | Path = "atto,tiny",
    backends: str | Path = "installed",
    seconds: float = 10.0,
    json: bool = False,
    device: str | Path = "auto",
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    compile: bool = False,
    kernels: Literal["auto", "native", "plain"] = "auto",
    data_dir: str | Path = "",
    dataset: Literal[
        "", "imagenet", "bundled", "fashion_mnist", "mnist", "cifar10", "cifar100",
    ] = "",
    dataset_download: bool = False,
    train_split: str | Path = "train",
    val_split: str | Path = "val",
    class_order: str | Path = "auto",
    columns: str | Path = "",
    labels: Literal["auto", "single", "multi"] = "auto",
    label_separator: str | Path = "",
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
    shard_cache_gb: float = 20.0,
    cache_mb: int = 0,
    image_size: int | tuple[int, int] | Literal["auto"] = 224,
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
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan",
    ] = "adamw",
    mask_ratio: float = 0.6,
    tile: int | None = None,
) -> list[dict[str, Any]]:
    """Measure whole steps of pre-training and training, inference, and the training loader.

    Each row is measured in a process of its own, so that its memory is known. Memory is the peak
    beyond what the imports took, including weights and optimizer. Two warm-up repetitions do not
    count.

    Args:
        works: What to measure: pretrain, train, inference, loader. If none is given, all are
            measured, loader only if there is a data_dir.
        models: Model sizes, separated by commas.
        backends: Inference engines, separated by commas: eager, compiled, aoti, onnxruntime,
            openvino. installed: all that are available here.
        seconds: How long to measure each row.
        json: Print the answer as JSON, for use by other programs.
        device: Device to use: auto, cpu, cuda, npu, mps and so on ('cuda:1' selects one of
            several).
        precision: Arithmetic of the forward pass. auto: bfloat16 if the device supports it, float16
            on older GPUs, otherwise float32.
        compile: Compile the training step with torch.compile. This needs a compiler, and the first
            step is slow.
        kernels: Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on
            first use), plain (PyTorch's), or auto (native if they can be compiled).
        data_dir: Image folder (with train/ and val/ inside, or with one folder for each class), a
            table (CSV, TSV, JSONL and others) with a path and a label in each row, or tar files of
            WebDataset's form: their folder, or a pattern such as train-{000..146}.tar, also on a
            server (s3://...). hf:OWNER/NAME names a data set on the Hugging Face Hub.
        dataset: Named data set to use instead of a folder; 'bundled' comes with the package.
        dataset_download: Allow a named data set to be downloaded.
        train_split: Subfolder with the training images.
        val_split: Subfolder with the validation images.
        class_order: How the rows of foreign weights without class names are matched with the
            classes of the data. text: class names sorted as text, as torchvision does. natural:
            numbers in names sorted by value, as timm does. number: each folder is named after its
            row. A file: one class name on each line, in the order of the rows. auto: decided by the
            format of the weights, ImageNet's ids and numbered folders.
        columns: Columns of a table to use if their names are not the usual ones, such as
            path=image_id,label=class,split=fold.
        labels: How many labels an image of a table has: one (single), or any number (multi;
            docs/how-to/multi-label.md). auto: several if the table shows that.
        label_separator: What separates the names in a table's column of labels, such as '|'; space
            for a blank. If empty, it is detected.
        images_dir: Folder that the paths in a table are relative to. If empty, it is the folder of
            the table.
        image_suffix: Suffix to add to the names in a table that have none, such as .jpg.
        val_fraction: Share of the images that is held out for validation if the data have no split
            of their own.
        num_samples: Use at most this many training images. They are chosen at random, but always in
            the same way.
        bad_images: What to do with a file that is truncated or is not an image: stop (fail), or
            leave it out and count it (skip). quarantine also lists it in the run's
            quarantine.jsonl, and the run never reads it again. Without a run, quarantine means
            skip.
        data_wait_s: How long to wait for images while their file server or folder is unavailable.
            0: do not wait.
        max_image_pixels: Size of the largest image that is decoded.
        batch_size: Number of images that a rank processes at once. auto: as many as fit into
            memory, with `accumulate` adapted so that the global batch is kept. Only training looks
            for what fits; other verbs use their default.
        shuffle: Shuffle the training images anew in every epoch.
        drop_last: Drop the last, incomplete batch of each training epoch.
        workers: Number of processes that decode and augment images. 0: the main process does it.
        shard_cache_gb: Disk space on this machine for images of tar files that lie on a server.
            What does not fit is fetched each time.
        cache_mb: Memory for decoded training images, shared by the workers of a rank. Images that
            do not fit are decoded each time. With a cache, JPEG files are decoded at full
            resolution.
        image_size: Side of the square images, or their height and width. With `time`, auto takes
            the largest size at which 20 epochs fit.
        in_channels: Number of channels that the network takes: 3 (RGB), 1 (grey), or the number of
            bands in the files (docs/how-to/preprocessing.md).
        value_range: For files with more than 8 bits: the values that become black and white, the
            same for all channels and images. Values outside are clipped. If empty, the type of the
            values decides (docs/how-to/preprocessing.md).
        scale: Share of the image's area that a random crop keeps: minimum and maximum.
        ratio: Aspect ratio (width / height) of a random crop: minimum and maximum.
        crop_padding: Pad each side with this many black pixels and crop back to size at a random
            place. This replaces the random resized crop. 0: off.
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        color_jitter: Strength of random changes of brightness, contrast and saturation: one number
            for all three, or one for each. A fourth number is for hue. Not used with
            `auto_augment`.
        auto_augment: Augmentation policy, for example randaug-m9-mstd0.5-inc1.
        interpolation: Interpolation with which images are resized.
        antialias: Average over the source pixels when an image is reduced. If empty, `eval_preset`
            decides: all presets do except mindcv.
        erase_prob: Probability of erasing a random rectangle.
        erase_scale: Share of the image's area that is erased: minimum and maximum.
        erase_ratio: Aspect ratio of the erased rectangle: minimum and maximum.
        erase_value: What fills the erased rectangle. 'random': noise from N(0, 1) for each pixel.
            Numbers (one, or one for each channel): these normalised values.
        erase_attempts: Number of attempts to place the rectangle. If all fail, the image is left as
            it is.
        mixup: Alpha of the Beta distribution of mixup. 0: off.
        cutmix: Alpha of the Beta distribution of cutmix. 0: off.
        mix_prob: Probability that mixup or cutmix is applied to a batch.
        mix_switch_prob: Probability of cutmix instead of mixup if both are on.
        aug_repeats: How often each image occurs in an epoch, augmented anew each time. The epoch
            keeps its length. 0: once.
        aug_splits: 3: each batch holds one clean and two augmented versions of every image (3 x
            batch_size images), as the jsd loss requires. 0: off.
        eval_preset: How evaluation images are prepared (docs/how-to/preprocessing.md).
        crop_pct: In evaluation, the short side is resized to image_size / crop_pct before the
            centre crop.
        mean: Mean of each channel for normalisation, on a scale from 0 to 1 (or from 0 to 255 if
            any value of mean or std is above 1).
        std: Standard deviation of each channel, on the scale of `mean`.
        drop_path_rate: Stochastic depth rate of the last block. The rate grows linearly from 0 at
            the first block.
        optimizer: Optimizer to use. lion, lamb and adan need the extra [optimizers].
        mask_ratio: Share of the tiles that is hidden.
        tile: Side of a tile. If empty, it is the total stride (8 x stem_stride).

    Returns:
        The rows of the table that is printed.
    """

def models(
    pattern: str | Path = "*",
    *,
    image_size: int = 224,
    weights: bool = False,
    json: bool = False,
) -> list[dict[str, Any]]:
    """Print the sizes that match a pattern, with depths, widths, parameters and multiply-adds.

    Parameters are counted with 1000 classes. Multiply-adds are those of one forward pass. They are
    counted on the network itself, on the meta device. With `weights`, public weights are listed in
    place of sizes; their accuracies are those that were published.

    Args:
        pattern: List only the sizes that match this pattern, such as '*tiny'.
        image_size: Side of the image for which multiply-adds are counted.
        weights: List public weights that `init` takes, with licence, size and published accuracy.
        json: Print the answer as JSON, for use by other programs.

    Returns:
        The same figures as a list, one dictionary for each size or for each weights file.
    """

def recipes(
    *,
    copy: str | Path = "",
    schema: bool = False,
    json: bool = False,
) -> list[tuple[str, str]]:
    """Print the recipes that come with the package, each with its first line.

    Args:
        copy: Copy this recipe into the working folder so that you can change it.
        schema: Print the JSON schema of recipes, which editors use to complete and check them.
        json: Print the answer as JSON, for use by other programs.

    Returns:
        The same as a list of (name, first line).

    Raises:
        RecipeError: There is no recipe with the name to copy, or the working folder already has a
            file with that name.
    """

def demo(
    *,
    quick: bool = False,
    out: str | Path = "runs/demo",
) -> Path:
    """Run pre-training, fine-tuning, validation and prediction on the bundled images.

    Args:
        quick: Finish in about a minute, with a poor accuracy.
        out: Folder to write. An earlier demo in it is replaced.

    Returns:
        The path of the report.

    Raises:
        RunError: `out` holds anything but an earlier demo.
    """

def push(
    run: str | Path,
    repository: str | Path,
    *,
    to: Literal["transformers", "timm"] = "transformers",
    onnx: Literal["auto", "on", "off"] = "auto",
    public: bool = False,
    revision: str | Path = "",
    license: str | Path = "",
    about: str | Path = "",
    allow_drift: bool = False,
    out: str | Path = "",
    dry_run: bool = False,
    json: bool = False,
) -> str:
    """Write a model as a repository of the Hugging Face Hub, and upload it.

    The repository has the weights and their configuration for transformers or timm, a card with the
    licence and the figures, and ONNX files for transformers.js. A push that was interrupted can be
    repeated. HF_ENDPOINT and HF_TOKEN count as they do for huggingface_hub.

    Args:
        run: Run folder, checkpoint or weights file.
        repository: Repository, which is made if it does not exist.
        to: Library that reads the weights. transformers.js reads those for transformers.
        onnx: Whether to add ONNX files for transformers.js. auto: if the packages for it are
            installed.
        public: Make a new repository public. Otherwise it is private.
        revision: Branch to push to, which is made if it does not exist. If empty, main.
        license: Licence on the card, such as apache-2.0. If empty, it is that of the weights that
            training started from.
        about: What the model is for, as Markdown for the card.
        allow_drift: Also push weights that the library would compute slightly differently.
        out: Keep the folder that is pushed here.
        dry_run: Write the folder to `out` and upload nothing.
        json: Print the answer as JSON, for use by other programs.

    Returns:
        The address of the repository, or the folder if `dry_run` is set.

    Raises:
        RecipeError: Options contradict each other, or the licence of the weights forbids one.
        CheckpointError: The model cannot be written in this format.
        ServerError: There is no token, or the Hub refuses or cannot be reached.
        MissingPackageError: A package that is needed is not installed.
    """
