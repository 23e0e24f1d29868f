"""The names of ConvNeXt's tensors in every format, in one table that is read in both directions.

A column is a format and a row is a part of the network. The canonical names are those of the
official dense checkpoints. Formats whose key ends in "-v1" hold the first ConvNeXt, whose blocks
have a layer scale in place of GRN; `weights.version_1` turns it into a ConvNeXt V2.

Sources: the official repositories (ConvNeXt-V2 2553895, ConvNeXt 048efce), timm (aa4b585),
transformers' models/convnextv2, convnext and dinov3_convnext (5.24), torchvision (0.29.1),
mmpretrain (ee7f2e8), MindCV (51b0636).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

CONV_MLP = frozenset({"convnextv2_atto", "convnextv2_femto", "convnextv2_pico", "convnextv2_nano"})
"""timm builds these sizes with 1x1 convolutions in place of linear layers, so their weights have
four dimensions."""


@dataclass(frozen=True)
class Format:
    """The names of one format, where {i} is the stage, {j} the block, {even} 2i and {odd} 2i + 1.

    Attributes:
        title: The name of the format in messages.
        stem_conv: The convolution of the stem.
        stem_norm: The norm of the stem.
        down_norm: The norm before a downsampling convolution.
        down_conv: A downsampling convolution.
        block: A block.
        dwconv: The depthwise convolution within a block.
        norm: The norm within a block.
        pwconv: A linear layer within a block, where {k} is 1 or 2, and {place} 3 or 5.
        grn: The names of GRN's gamma and beta within a block; None for the first ConvNeXt.
        final_norm: The norm before the classifier.
        head: The classifier.
        outer: The prefix of every name except the classifier's in a whole model.
        affine: The names of a norm's scale and shift.
        kernel: The name of a convolution's weight, except the stem's.
        grn_shape: The shape of GRN's gamma and beta.
        tanh_gelu: Whether the format computes GELU by its tanh approximation.
        scale: The name of the layer scale within a block; empty for ConvNeXt V2.
        scale_shape: The shape of the layer scale.
        needs: Another name that must occur, if other networks share the stem's name.
        norm_is_outside: Whether `outer` does not precede the final norm's name either.
    """

    title: str
    stem_conv: str
    stem_norm: str
    down_norm: str
    down_conv: str
    block: str
    dwconv: str
    norm: str
    pwconv: str
    grn: tuple[str, str] | None
    final_norm: str
    head: str
    outer: str = ""
    affine: tuple[str, str] = ("weight", "bias")
    kernel: str = "weight"
    grn_shape: tuple[int, ...] = (-1,)
    tanh_gelu: bool = False
    scale: str = ""
    scale_shape: tuple[int, ...] = (-1,)
    needs: str = ""
    norm_is_outside: bool = False


VERSION_1 = "-v1"
"""The ending of the keys of formats that hold the first ConvNeXt."""


def _first_version(key: str, scale: str, outer: str = "") -> Format:
    """Describe the first ConvNeXt in the format of a library that has both versions."""
    form = _VERSION_2[key]
    title, outer = f"{form.title}, ConvNeXt V1", outer or form.outer
    return replace(form, title=title, grn=None, scale=scale, outer=outer)


_VERSION_2: dict[str, Format] = {
    "official": Format(
        title="official PyTorch code",
        stem_conv="downsample_layers.0.0",
        stem_norm="downsample_layers.0.1",
        down_norm="downsample_layers.{i}.0",
        down_conv="downsample_layers.{i}.1",
        block="stages.{i}.{j}",
        dwconv="dwconv",
        norm="norm",
        pwconv="pwconv{k}",
        grn=("grn.gamma", "grn.beta"),
        final_norm="norm",
        head="head",
        grn_shape=(1, 1, 1, -1),
    ),
    "official-sparse": Format(
        title="official FCMAE checkpoint with sparse kernels",
        stem_conv="downsample_layers.0.0",
        stem_norm="downsample_layers.0.1",
        down_norm="downsample_layers.{i}.0.ln",
        down_conv="downsample_layers.{i}.1",
        block="stages.{i}.{j}",
        dwconv="dwconv",
        norm="norm.ln",
        pwconv="pwconv{k}.linear",
        grn=("grn.gamma", "grn.beta"),
        final_norm="norm",
        head="head",
        outer="encoder.",
        kernel="kernel",
        grn_shape=(1, -1),
    ),
    "timm": Format(
        title="timm",
        stem_conv="stem.0",
        stem_norm="stem.1",
        down_norm="stages.{i}.downsample.0",
        down_conv="stages.{i}.downsample.1",
        block="stages.{i}.blocks.{j}",
        dwconv="conv_dw",
        norm="norm",
        pwconv="mlp.fc{k}",
        grn=("mlp.grn.weight", "mlp.grn.bias"),
        final_norm="head.norm",
        head="head.fc",
    ),
    "transformers": Format(
        title="Hugging Face transformers",
        stem_conv="embeddings.patch_embeddings",
        stem_norm="embeddings.layernorm",
        down_norm="encoder.stages.{i}.downsampling_layer.0",
        down_conv="encoder.stages.{i}.downsampling_layer.1",
        block="encoder.stages.{i}.layers.{j}",
        dwconv="dwconv",
        norm="layernorm",
        pwconv="pwconv{k}",
        grn=("grn.weight", "grn.bias"),
        final_norm="layernorm",
        head="classifier",
        outer="convnextv2.",
        grn_shape=(1, 1, 1, -1),
    ),
    "mmpretrain": Format(
        title="mmpretrain",
        stem_conv="downsample_layers.0.0",
        stem_norm="downsample_layers.0.1",
        down_norm="downsample_layers.{i}.0",
        down_conv="downsample_layers.{i}.1",
        block="stages.{i}.{j}",
        dwconv="depthwise_conv",
        norm="norm",
        pwconv="pointwise_conv{k}",
        grn=("grn.gamma", "grn.beta"),
        final_norm="norm3",
        head="head.fc",
        outer="backbone.",
    ),
    "mindcv": Format(
        title="MindCV",
        stem_conv="feature.0.0",
        stem_norm="feature.0.1",
        down_norm="feature.{even}.0",
        down_conv="feature.{even}.1",
        block="feature.{odd}.{j}",
        dwconv="dwconv",
        norm="norm",
        pwconv="pwconv{k}",
        grn=("grn.gamma", "grn.beta"),
        final_norm="norm",
        head="classifier",
        affine=("gamma", "beta"),
        grn_shape=(1, 1, 1, -1),
        tanh_gelu=True,
    ),
}

FORMATS: dict[str, Format] = _VERSION_2 | {
    "official-v1": _first_version("official", "gamma"),
    "timm-v1": _first_version("timm", "gamma"),
    "transformers-v1": _first_version("transformers", "layer_scale_parameter", "convnext."),
    "mmpretrain-v1": _first_version("mmpretrain", "gamma"),
    "mindcv-v1": _first_version("mindcv", "gamma_"),
    "torchvision-v1": Format(
        title="torchvision, ConvNeXt V1",
        stem_conv="features.0.0",
        stem_norm="features.0.1",
        down_norm="features.{even}.0",
        down_conv="features.{even}.1",
        block="features.{odd}.{j}",
        dwconv="block.0",
        norm="block.2",
        pwconv="block.{place}",
        grn=None,
        final_norm="classifier.0",
        head="classifier.2",
        scale="layer_scale",
        scale_shape=(-1, 1, 1),
        needs="features.1.0.layer_scale",
    ),
    "dinov3-v1": Format(
        title="Hugging Face transformers, DINOv3 ConvNeXt",
        stem_conv="stages.0.downsample_layers.0",
        stem_norm="stages.0.downsample_layers.1",
        down_norm="stages.{i}.downsample_layers.0",
        down_conv="stages.{i}.downsample_layers.1",
        block="stages.{i}.layers.{j}",
        dwconv="depthwise_conv",
        norm="layer_norm",
        pwconv="pointwise_conv{k}",
        grn=None,
        final_norm="layer_norm",
        head="head",  # Meta's have none
        outer="model.",
        scale="gamma",
        norm_is_outside=True,
    ),
}
"""The formats by key."""


def library_of(key: str) -> str:
    """Return the library of a format's key, such as "timm" for "timm" and "timm-v1"."""
    return key.removesuffix(VERSION_1)


def is_version_1(key: str) -> bool:
    """Return whether a format holds the first ConvNeXt."""
    return key.endswith(VERSION_1)


def name_table(key: str, depths: Sequence[int], prefix: str | None = None) -> dict[str, str]:
    """Translate the name of every tensor of a classifier.

    Args:
        key: The format, a key of `FORMATS`.
        depths: The number of blocks in each stage.
        prefix: The prefix of the encoder's names. None stands for the format's own `outer`. The
            classifier's name lacks `outer`, but has the prefix of a wrapper ("module.").

    Returns:
        The format's name of each tensor, by canonical name. A layer scale is "stages.0.0.gamma", as
        in the official code of the first ConvNeXt.
    """
    form = FORMATS[key]
    inner = form.outer if prefix is None else prefix
    wrapper = inner.removesuffix(form.outer)
    table: dict[str, str] = {}

    def add(canonical: str, name: str, suffixes: tuple[str, str] = ("weight", "bias")) -> None:
        table[f"{canonical}.weight"] = f"{name}.{suffixes[0]}"
        table[f"{canonical}.bias"] = f"{name}.{suffixes[1]}"

    add("downsample_layers.0.0", inner + form.stem_conv)
    add("downsample_layers.0.1", inner + form.stem_norm, form.affine)
    for i, depth in enumerate(depths):
        at = {"i": i, "even": 2 * i, "odd": 2 * i + 1}
        if i:
            add(f"downsample_layers.{i}.0", inner + form.down_norm.format(**at), form.affine)
            add(
                f"downsample_layers.{i}.1",
                inner + form.down_conv.format(**at),
                (form.kernel, "bias"),
            )
        for j in range(depth):
            own, block = f"stages.{i}.{j}.", f"{inner}{form.block.format(j=j, **at)}."
            add(f"{own}dwconv", block + form.dwconv, (form.kernel, "bias"))
            add(f"{own}norm", block + form.norm, form.affine)
            for k in (1, 2):
                add(f"{own}pwconv{k}", block + form.pwconv.format(k=k, place=2 * k + 1))
            if form.grn:
                for name, theirs in zip(("gamma", "beta"), form.grn, strict=True):
                    table[f"{own}grn.{name}"] = block + theirs
            if form.scale:
                table[f"{own}gamma"] = block + form.scale
    add("norm", (wrapper if form.norm_is_outside else inner) + form.final_norm, form.affine)
    add("head", wrapper + form.head)
    return table


def to_canonical(name: str, tensor: Tensor) -> Tensor:
    """Give a tensor of another format the shape that this package uses.

    Args:
        name: The canonical name.
        tensor: The tensor in the shape of its format.

    Returns:
        A flat tensor for GRN, biases and the mask token, (out, in) for linear layers, and
        (O, I, k, k) for convolutions.
    """
    if name.endswith((".gamma", ".beta", ".bias")) or name == "mask_token":
        return tensor.reshape(-1)
    if ".pwconv" in name and tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    return tensor


def dense_kernel(kernel: Tensor) -> Tensor:
    """Convert the kernel of a sparse convolution to a dense one.

    MinkowskiEngine numbers the offsets column by column: row r, column c is entry c * k + r
    (utils.py:545-578 of the official code).

    Args:
        kernel: (k * k, I, O), or (k * k, C) for a depthwise convolution.

    Returns:
        (O, I, k, k), or (C, 1, k, k) for a depthwise convolution.
    """
    k = round(kernel.shape[0] ** 0.5)
    if kernel.dim() == 2:
        kernel = kernel[:, None, :]
    offsets, inputs, outputs = kernel.shape
    assert k * k == offsets, kernel.shape
    return kernel.permute(2, 1, 0).reshape(outputs, inputs, k, k).transpose(2, 3).contiguous()


def is_layer_scale(name: str) -> bool:
    """Return whether a canonical name is that of a layer scale."""
    return name.startswith("stages.") and name.count(".") == 3 and name.endswith(".gamma")


def to_foreign(key: str, name: str, tensor: Tensor, *, size: str = "") -> Tensor:
    """Give a tensor the shape that another format uses.

    Args:
        key: The format, a key of `FORMATS`.
        name: The canonical name.
        tensor: The tensor in the shape that this package uses.
        size: The name of the model's size, which decides the kind of MLP in timm.

    Returns:
        The tensor in the shape of the format.
    """
    if ".grn." in name:
        return tensor.reshape(FORMATS[key].grn_shape)
    if is_layer_scale(name):
        return tensor.reshape(FORMATS[key].scale_shape)
    if (
        library_of(key) == "timm"
        and size in CONV_MLP
        and ".pwconv" in name
        and name.endswith(".weight")
    ):
        return tensor[:, :, None, None]
    return tensor
