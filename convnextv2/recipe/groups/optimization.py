"""The knobs of the optimization: epochs, learning rate, optimizer, loss and moving average."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare

_optim = partial(declare, group="optimization")


class OptimizationKnobs(Knobs):
    """The knobs of the optimization: epochs, learning rate, optimizer, loss and moving average."""

    epochs: int = _optim(
        100,
        "Number of passes over the training images.",
        unit="epochs",
        mindcv="epoch_size",
        ge=1,
        le=1_000_000,
        idle=("has_time",),
    )
    time: str = _optim(
        "",
        "Time for the whole run, such as 30m, 1h30m or 2d, in place of `epochs`. A number without "
        "a unit means minutes. The first epoch is the warm-up and is timed; the learning rate then "
        "falls along a cosine over as many epochs as fit.",
    )
    optimizer: Literal[
        "adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion", "lamb", "adan"
    ] = _optim(
        "adamw", "Optimizer to use. lion, lamb and adan need the extra [optimizers].", mindcv="opt"
    )
    lr: float = _optim(
        1e-3,
        "Peak learning rate, for a global batch of `lr_batch_size` images.",
        ge=0,
        le=1_000_000_000_000,
    )
    lr_batch_size: int | None = _optim(
        None,
        "Global batch that `lr` is meant for. If empty, `lr` applies to any batch.",
        unit="images",
        ge=1,
        le=100_000_000,
    )
    scale_lr: bool = _optim(False, "Multiply `lr` and `min_lr` by global batch / lr_batch_size.")
    min_lr: float = _optim(
        1e-6,
        "Lowest learning rate of the cosine, one_cycle and cyclic schedules.",
        ge=0,
        le=1_000_000_000_000,
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
        "Length of the linear warm-up at the start, which is part of `epochs`.",
        unit="epochs",
        ge=0,
        le=1_000_000,
        idle=("has_time",),
    )
    warmup_factor: float = _optim(
        0.0,
        "Learning rate at the first step of the warm-up, as a share of `lr`.",
        ge=0,
        le=1,
        idle=("no_warmup",),
    )
    decay_epochs: int | None = _optim(
        None,
        "Length of a cosine, or period of the step schedule. If empty, all epochs after the "
        "warm-up.",
        unit="epochs",
        ge=1,
        le=1_000_000,
        idle=("no_length", "has_time"),
    )
    decay_rate: float = _optim(
        0.9,
        "Factor of the exponential, step and multi_step schedules, or power of the polynomial one.",
        gt=0,
        le=100,
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
        "Number of consecutive cosines, or of periods of the cyclic schedule.",
        ge=1,
        le=1_000_000,
        idle=("no_cycles",),
    )
    cycle_decay: float = _optim(
        1.0,
        "Factor on the peak learning rate from one cosine to the next.",
        gt=0,
        le=100,
        idle=("no_cycle_decay",),
    )
    betas: tuple[float, float] | None = _optim(
        None,
        "Decay rates of the optimizer's moving averages. If empty, the optimizer's own: (0.9, "
        "0.999) for adamw, adam, nadam and lamb.",
        idle=("no_betas",),
    )
    eps: float = _optim(1e-8, "Epsilon of the adaptive optimizers.", gt=0, le=100, idle=("no_eps",))
    momentum: float = _optim(0.9, "Momentum of sgd and rmsprop.", ge=0, lt=1, idle=("no_momentum",))
    nesterov: bool = _optim(False, "Use Nesterov momentum with sgd.", mindcv="use_nesterov")
    weight_decay: float = _optim(
        0.05,
        "Weight decay. It is decoupled in adamw, lion, lamb and adan, and added to the gradient "
        "in the other optimizers.",
        ge=0,
        le=1_000,
    )
    weight_decay_filter: Literal["norm_and_bias", "disable", "auto"] = _optim(
        "norm_and_bias",
        "What is exempt from weight decay: norms, biases, GRN and the mask token "
        "(norm_and_bias), only norms and GRN (auto), or nothing (disable).",
    )
    layer_decay: float | None = _optim(
        None,
        "Factor between the learning rates of each layer and the one above it, from the head (1) "
        "down to the stem.",
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
        None,
        "Maximum of the gradient's global norm. A larger gradient is scaled down to it.",
        gt=0,
        le=1_000_000_000,
    )
    loss_scale: float = _optim(
        65536.0,
        "Initial loss scale in float16. It is halved on overflow and doubled after 2000 steps "
        "without one.",
        ge=1,
        le=2**32,
        idle=("no_scale",),
    )
    global_batch: int | None = _optim(
        None,
        "Number of images in one step, over all ranks. `accumulate` is derived from it; with "
        "batch_size auto, both are chosen to match it. If empty, batch_size x accumulate x ranks.",
        unit="images",
        ge=1,
        le=100_000_000,
    )
    accumulate: int = _optim(
        1,
        "Number of batches whose gradients make up one step.",
        mindcv="gradient_accumulation_steps",
        ge=1,
        le=1_000_000,
    )
    loss: Literal["ce", "bce", "asl_single_label", "asl_multi_label", "jsd"] = _optim(
        "ce",
        "Loss function: cross entropy over a softmax (ce), binary cross entropy (bce), asymmetric "
        "loss (asl_single_label, asl_multi_label), or Jensen-Shannon divergence (jsd, with "
        "aug_splits 3). With several labels per image, it must be bce or asl_multi_label; ce then "
        "becomes bce.",
        only="train",
    )
    pos_weight: Literal["none", "balanced"] = _optim(
        "none",
        "With several labels per image: the weight of a class in the loss of images that have it. "
        "balanced: the number of images without the class divided by that of images with it, at "
        "most 10.",
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
        "`class_weights_beta`), or given in a table (1 for other classes). The weights are scaled "
        "to a mean of 1 over the images.",
        only="train",
    )
    class_weights_beta: float = _optim(
        0.999,
        "beta in the effective number of n images, (1 - beta^n) / (1 - beta). Near 0, all weights "
        "are nearly equal; near 1, they are nearly balanced.",
        gt=0,
        lt=1,
        idle=("no_effective",),
        only="train",
    )
    sampling: Literal["natural", "balanced", "sqrt"] | float = _optim(
        "natural",
        "How often the images of a class are drawn. natural: each image once in an epoch. "
        "balanced: every class equally often. sqrt: in proportion to the square root of its number "
        "of images. A number p from 0 to 1: in proportion to its number of images to the power of "
        "p. The length of an epoch stays the same.",
        only="train",
    )
    logit_adjustment: float = _optim(
        0.0,
        "tau: the loss adds tau times the logarithm of the class frequencies to the logits, so "
        "that the network itself does not learn to prefer frequent classes. 1: compensate fully. "
        "0: off.",
        ge=0,
        le=100,
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
