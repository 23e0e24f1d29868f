"""The knobs of a run: its folder and device, and what it keeps and logs."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare

_run = partial(declare, group="run")


class RunKnobs(Knobs):
    """The knobs of a run: its folder and device, and what it keeps and logs."""

    out: str = _run("", "Run folder to write. If empty, runs/VERB-MODEL.", mindcv="ckpt_save_dir")
    resume: bool | Literal["auto"] = _run(
        False,
        "Continue the run in `out` from its last checkpoint, up to `epochs`. With auto, a run "
        "without a checkpoint is started instead, so that the same command works for the first "
        "start and for every later one.",
    )
    resume_allow: tuple[str, ...] | None = _run(
        None,
        "What may differ from the run that is resumed: names of knobs (such as precision), images, "
        "classes or ranks. Any other difference that affects the result is refused.",
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
        "Seed of all random choices. Each choice depends only on the seed and on the position in "
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
        "Produce the same weights, bit for bit, on any number of ranks. A step then has accumulate "
        "x ranks batches, which must be a power of two, and their gradients are added in a fixed "
        "order.",
    )
    shard: bool = _run(
        False,
        "Split weights, gradients, optimizer moments and the moving average across the ranks, so "
        "that each holds only a part (FSDP2). For models that do not fit into the memory of one "
        "device; see docs/how-to/sharding.md.",
    )
    rank_timeout_s: int = _run(
        600,
        "How long to wait for a rank that does not answer before the job ends.",
        unit="s",
        ge=1,
        le=31_536_000,
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
        "Kernels of this package: native (C++ on a CPU, Triton on an NVIDIA GPU, compiled on first "
        "use), plain (PyTorch's own), or auto (native if they can be compiled).",
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
        le=1_000_000,
        idle=("no_validation",),
        only="train",
    )
    best_by: Literal["top1", "balanced_accuracy", "macro_f1", "loss"] = _run(
        "top1",
        "Validation metric that decides which weights are best: accuracy (top1), "
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
        le=1_000_000,
        idle=("no_validation",),
        only="train",
    )
    save_every_epochs: int = _run(
        1,
        "Number of epochs between checkpoints. The last epoch is always saved.",
        unit="epochs",
        mindcv="ckpt_save_interval",
        ge=1,
        le=1_000_000,
    )
    save_every_steps: int | None = _run(
        None,
        "Also save a checkpoint each time this many steps have passed.",
        unit="steps",
        ge=1,
        le=1_000_000_000,
    )
    save_every_minutes: float | None = _run(
        None, "Also save a checkpoint when the last one is this old.", unit="min", gt=0, le=525_600
    )
    async_save: bool = _run(
        True,
        "Write checkpoints in the background while training continues. This needs memory for a "
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
        le=1_000_000,
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
        50,
        "Number of steps between log lines.",
        unit="steps",
        mindcv="log_interval",
        ge=1,
        le=1_000_000_000,
    )
    tensorboard: bool = _run(True, "Write TensorBoard events into the run folder.")
    loggers: tuple[str, ...] | None = _run(
        None,
        "Experiment trackers to log to as well: wandb, mlflow, trackio. Their failures never stop "
        "a run.",
    )
