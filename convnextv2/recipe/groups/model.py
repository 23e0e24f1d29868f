"""The knobs of the model: its size, its blocks, and the weights that it starts from."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare
from convnextv2.sizes import MAX_CLASSES

_model = partial(declare, group="model")


class ModelKnobs(Knobs):
    """The knobs of the model: its size, its blocks, and the weights that it starts from."""

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
        "Number of classes. If empty, that of the data.",
        ge=1,
        le=MAX_CLASSES,
        only="train",
    )
    stem_stride: Literal[1, 2, 4] = _model(
        4, "Stride of the stem: 4 for photographs, 2 or 1 for small images."
    )
    block: Literal["v2", "v2_without_grn", "v1"] = _model(
        "v2",
        "Type of the blocks: those of ConvNeXt V2 (v2), the same without GRN (v2_without_grn), or "
        "those of the first ConvNeXt, with layer scale and without GRN (v1). The last two are for "
        "comparisons.",
    )
    gelu: Literal["exact", "tanh"] = _model(
        "exact", "Exact GELU or its tanh approximation. Weights from MindCV need 'tanh'."
    )
    grn_scope: Literal["image", "batch"] = _model(
        "image",
        "What GRN computes its statistics over: each image, or the whole batch, as in the official "
        "sparse code.",
        idle=("no_grn",),
    )
    norm_eps: float = _model(
        1e-6, "Epsilon of the final norm. Checkpoints of Transformers use 1e-12.", gt=0, le=1
    )
    inner_eps: float = _model(
        1e-6,
        "Epsilon of all norms but the final one. timm's convnext_xxlarge uses 1e-5.",
        gt=0,
        le=1,
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
        le=1_000,
        only="train",
    )
    grad_checkpoint: bool = _model(
        False, "Recompute activations in the backward pass, which saves memory but takes longer."
    )
    init: str = _model(
        "",
        "Weights to start from: a run folder, a weights file in any known format, OWNER/NAME on "
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
        "What to freeze: nothing (none), the stem, the stem and the first 1, 2 or 3 stages, or "
        "everything except the final norm and the head (encoder).",
        only="train",
    )
    freeze_grn: bool = _model(
        False,
        "Do not train GRN. A model that starts from a first-version ConvNeXt then remains one, and "
        "`convert` can write it as one.",
        only="train",
    )
