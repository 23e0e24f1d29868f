"""Turns the tensors of one form of block into those of another: V1, V2, and V2 without GRN.

A block of the first version is x + s * (W2 GELU(W1 LN(D7(x))) + b), where s is the layer scale, one
number for each channel. A block of V2 has GRN before W2, and no s. GRN with gamma = beta = 0 is the
identity, and s can be multiplied into W2 and b. So every V1 is a V2 whose GRN is zero, with the
same outputs. GRN's gradients at zero are not zero, so it learns from the first step on. Files of
other libraries are read as a V2; those of this package keep their form, the argument `block`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.text import brief
from convnextv2.weights.dtypes import wide_dtype
from convnextv2.weights.names import FORMATS, VERSION_1, is_layer_scale, library_of

FOLDED = (
    "A ConvNeXt of the first version: its layer scale is multiplied into the second linear layer "
    "of each block and GRN starts at zero, which changes no output."
)
UNSCALED = (
    "It has neither layer scale nor GRN, so it is read as a ConvNeXt of the first version without "
    "layer scale. GRN starts at zero, which changes no output."
)


def check_variant(tensors: Mapping[str, Tensor], key: str, prefix: str, path: Path) -> None:
    """Refuse networks that share the names of a ConvNeXt but compute something else.

    Args:
        tensors: The tensors under the names of their format.
        key: The format, a key of `FORMATS`.
        prefix: The prefix of the encoder's names.
        path: The file, for error messages.

    Raises:
        CheckpointError: The tensors are those of such a network.
    """
    form, names = FORMATS[key], tensors.keys()
    why = ""
    if form.grn and _scale_of_first_block(key, prefix) in names:
        why = "its blocks have both GRN and a layer scale"
    elif library_of(key) == "timm" and f"{prefix}norm_pre.weight" in names:
        why = "it normalises before it pools (timm's *_hnf)"
    elif library_of(key) == "timm" and f"{prefix}stem.2.weight" in names:
        why = "its stem consists of two overlapping convolutions (timm's *_ols)"
    elif library_of(key) == "timm" and f"{prefix}stem.1.bias" not in names:
        why = "its norms have no bias (timm's *_rms)"
    elif f"{prefix}stages.0.downsample.1.weight" in names:
        why = "its first stage downsamples (timm's patch_size = 2)"
    else:
        sides = {
            tuple(tensor.shape[2:])
            for name, tensor in tensors.items()
            if name.startswith(prefix) and name.endswith(f".{form.dwconv}.weight")
        }
        if sides and sides != {(7, 7)} and all(len(side) == 2 for side in sides):
            odd = max(sides - {(7, 7)})
            why = f"its blocks have depthwise kernels of {odd[0]} x {odd[1]}"
    if why:
        raise CheckpointError(
            f"{path}: {why}, which a ConvNeXt V2 does not. Such a network cannot be built here."
        )


def _scale_of_first_block(key: str, prefix: str) -> str:
    """Return the name of the first block's layer scale in the format's version of ConvNeXt V1."""
    form = FORMATS.get(f"{key}{VERSION_1}")
    return f"{prefix}{form.block.format(i=0, j=0, even=0, odd=1)}.{form.scale}" if form else ""


def fold_layer_scale(
    tensors: Mapping[str, Tensor], depths: tuple[int, ...], path: Path
) -> dict[str, Tensor]:
    """Turn the tensors of a ConvNeXt of the first version into those of a ConvNeXt V2.

    The product is computed in float64 and rounded once. It is kept in float32 at least, because
    float16 would round many of the small products to zero.

    Args:
        tensors: The tensors by canonical name. The layer scale is "stages.0.0.gamma".
        depths: The number of blocks in each stage.
        path: The file, for error messages.

    Returns:
        The tensors of a ConvNeXt V2 that computes the same, with GRN at zero. Missing tensors stay
        missing.

    Raises:
        CheckpointError: A layer scale does not fit its linear layer, or is missing in some blocks.
    """
    folded = dict(tensors)
    blocks = [f"stages.{i}.{j}." for i, depth in enumerate(depths) for j in range(depth)]
    unscaled = [block for block in blocks if f"{block}gamma" not in tensors]
    if unscaled and len(unscaled) < len(blocks):
        raise CheckpointError(
            f"{path}: {len(unscaled)} of {len(blocks)} blocks have no layer scale: "
            f"{brief([block.rstrip('.') for block in unscaled])}."
        )
    for block in blocks:
        weight, bias = (tensors.get(f"{block}pwconv2.{name}") for name in ("weight", "bias"))
        scale = folded.pop(f"{block}gamma", None)
        if weight is None or bias is None or weight.dim() != 2:
            continue  # the check of the whole network reports it
        if scale is not None:
            if not scale.shape == bias.shape == weight.shape[:1]:
                raise CheckpointError(
                    f"{path}: {block}gamma is {tuple(scale.shape)}, expected {tuple(bias.shape)}."
                )
            for name, tensor, factor in (
                ("weight", weight, scale.double()[:, None]),
                ("bias", bias, scale.double()),
            ):
                product = tensor.double() * factor
                folded[f"{block}pwconv2.{name}"] = product.to(wide_dtype(tensor.dtype))
        for name in ("gamma", "beta"):
            folded[f"{block}grn.{name}"] = torch.zeros(weight.shape[1])
    return folded


def to_version_1(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the tensors of a ConvNeXt V2 whose GRN is zero into those of the first version.

    Args:
        tensors: The tensors by canonical name, with or without GRN, or with layer scales.

    Returns:
        The tensors without GRN, and with layer scales of 1 where there are none.

    Raises:
        CheckpointError: GRN is not zero, so the first version cannot compute the same.
    """
    trained = [name for name, tensor in tensors.items() if ".grn." in name and tensor.any()]
    if trained:
        raise CheckpointError(
            f"GRN is not zero ({len(trained)} tensors, such as {trained[0]}), and a ConvNeXt of "
            "the first version has none. Convert to a format of ConvNeXt V2."
        )
    kept = {name: tensor for name, tensor in tensors.items() if ".grn." not in name}
    scales = {
        name.replace("pwconv2.bias", "gamma"): torch.ones_like(tensor)
        for name, tensor in kept.items()
        if name.endswith("pwconv2.bias")
    }
    return scales | kept


@dataclass(frozen=True)
class Fitted:
    """The tensors of an encoder in the form of block that a model has.

    Attributes:
        tensors: The tensors by canonical name.
        adapted: Name of each tensor that was changed or made, and how.
        left_out: Name of each tensor that the form does not have, and why.
    """

    tensors: dict[str, Tensor]
    adapted: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def fit_block(
    tensors: Mapping[str, Tensor], block: str, depths: tuple[int, ...], path: Path
) -> Fitted:
    """Give an encoder's tensors the form of block that a model has.

    A GRN that is not zero has no equivalent in a form without GRN. It is left out then, and the
    outputs differ. All other conversions preserve the outputs.

    Args:
        tensors: The tensors of an encoder by canonical name.
        block: The desired form, one of `model.layers.BLOCKS`.
        depths: The number of blocks in each stage.
        path: The file, for error messages.

    Returns:
        The tensors in that form, and what was done for it. Missing tensors stay missing.

    Raises:
        CheckpointError: A layer scale does not fit its linear layer, or is missing in some blocks.
    """
    grn = {name: tensor for name, tensor in tensors.items() if ".grn." in name}
    has_scale = any(is_layer_scale(name) for name in tensors)
    if block == "v2" and grn and not has_scale:
        return Fitted(dict(tensors))
    left_out, adapted = [], {}
    if block != "v2":
        why = f"block = {block} has no GRN"
        ends = {True: ", so the features will differ", False: "; it is zero and changes nothing"}
        left_out = [(name, f"{why}{ends[bool(t.any())]}") for name, t in grn.items()]
    bare = {name: tensor for name, tensor in tensors.items() if name not in grn}
    if block == "v1":
        fitted = to_version_1(bare)
        adapted = dict.fromkeys(fitted.keys() - bare.keys(), "1, the weights have no layer scale")
        return Fitted(fitted, adapted, left_out)
    fitted = fold_layer_scale(bare, depths, path)
    made = {name for name in fitted if name not in bare}
    if block == "v2":
        adapted = dict.fromkeys(sorted(made), "0, the weights have no GRN")
    else:
        fitted = {name: tensor for name, tensor in fitted.items() if name not in made}
    if has_scale:
        changed = [name for name in fitted if ".pwconv2." in name]
        adapted |= dict.fromkeys(changed, "multiplied by the layer scale, which changes no output")
    return Fitted(fitted, adapted, left_out)
