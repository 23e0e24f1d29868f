"""Initialises a model with the weights of another, and reports how each tensor was treated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.pyramid import name_in_encoder
from convnextv2.text import brief
from convnextv2.weights.describe import size_name
from convnextv2.weights.detect import depths_of
from convnextv2.weights.dtypes import wide_dtype
from convnextv2.weights.version_1 import fit_block


@dataclass(frozen=True)
class LoadReport:
    """A report of how each tensor was treated when weights were loaded.

    Attributes:
        loaded: Names of tensors that were taken as they are.
        adapted: Name of each tensor that was changed to fit, and how.
        left_out: Name of each tensor that was not taken, and why.
        fresh: Names of tensors of the model that keep their initial values.
    """

    loaded: list[str]
    adapted: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    fresh: list[str]

    def lines(self) -> list[str]:
        """Describe the report in lines to print.

        Returns:
            A line of counts, then a line for everything that was not simply loaded.
        """
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted, "
            f"{len(self.left_out)} left out, {len(self.fresh)} new."
        ]
        for title, told in (("adapted ", self.adapted), ("left out", self.left_out)):
            grouped: dict[str, list[str]] = {}
            for name, what in told:
                grouped.setdefault(what, []).append(name)
            lines += [f"  {title}  {brief(names)}: {what}" for what, names in grouped.items()]
        if self.fresh:
            lines.append(f"  new       {brief(self.fresh)}: initial values")
        return lines


def load_encoder(model: ConvNeXtV2, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Initialise a classifier or a bare encoder with the weights of any network with an encoder.

    The encoder must be complete and of the model's size. The stem is adapted to another number of
    input channels, and the blocks to their form in the model. A head with another number of classes
    is left out, and so is everything around an encoder: FCMAE's decoder, and the norms and heads of
    a network for segmentation or detection.

    Args:
        model: The model to fill; its tensors are overwritten.
        tensors: The weights by canonical name.
        source: The file or run that they come from, for error messages.

    Returns:
        The treatment of each tensor.

    Raises:
        CheckpointError: The encoder is of another size or incomplete, or a tensor does not fit.
    """
    tensors, left_out = _encoder_of(tensors)
    own = model.state_dict()
    _check_size(model, tensors, source)
    fitted = fit_block(tensors, model.block, model.depths, Path(source))
    tensors, left_out = fitted.tensors, left_out + fitted.left_out

    loaded, chosen = [], {}
    adapted = list(fitted.adapted.items())
    for name, tensor in tensors.items():
        if name not in own:
            left_out.append((name, "the model has no such tensor"))
        elif tensor.shape == own[name].shape:
            chosen[name] = tensor
            if name not in fitted.adapted:
                loaded.append(name)
        elif name == "downsample_layers.0.0.weight" and tensor.shape[2:] == own[name].shape[2:]:
            chosen[name] = adapt_channels(tensor, own[name].shape[1])
            adapted.append((name, f"{tensor.shape[1]} input channels to {own[name].shape[1]}"))
        elif name.startswith("head."):
            left_out.append(
                (name, f"a head of {len(tensor)} classes, the model has {model.num_classes}")
            )
        else:
            raise CheckpointError(
                f"{source}: {name} is {tuple(tensor.shape)}, but the model expects "
                f"{tuple(own[name].shape)} (stem_stride {model.stem_stride})."
            )
    fresh = [name for name in own if name not in chosen]
    incomplete = [name for name in fresh if not name.startswith(("norm.", "head."))]
    if incomplete:
        raise CheckpointError(
            f"{source}: {len(incomplete)} tensors of the encoder are missing, for example "
            f"{incomplete[0]}."
        )
    model.load_state_dict(chosen, strict=False)
    return LoadReport(loaded, adapted, left_out, fresh)


def _encoder_of(
    tensors: Mapping[str, Tensor],
) -> tuple[Mapping[str, Tensor], list[tuple[str, str]]]:
    """Extract the encoder's tensors from a larger network; a classifier's are returned unchanged.

    Returns:
        The encoder's tensors by canonical name, and the name of each tensor that is left out with
        the reason.
    """
    inside = {name: name_in_encoder(name) for name in tensors}
    encoder = {inside[name]: tensor for name, tensor in tensors.items() if inside[name] != name}
    if not encoder:
        return tensors, []
    is_pretraining = "mask_token" in tensors
    why = "part of the decoder" if is_pretraining else "part of the head of another task"
    return encoder, [(name, why) for name in tensors if inside[name] == name]


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt a stem's weight to another number of input channels, as timm does.

    A single channel gets the sum over the old ones. Otherwise the old channels are repeated and
    scaled by I / channels, so that the magnitude of the stem's response is preserved.

    Args:
        weight: The convolution's weight, (O, I, s, s).
        channels: The desired number of input channels.

    Returns:
        The weight for that number, (O, channels, s, s), in float32 at least.
    """
    known, weight = weight.shape[1], weight.to(wide_dtype(weight.dtype))
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % known] * (known / channels)


def _check_size(model: ConvNeXtV2, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError if weights have other depths or widths than the model."""
    depths = depths_of("official", "", tensors)
    dims = tuple(
        len(tensors[name]) if (name := f"stages.{i}.0.norm.weight") in tensors else 0
        for i in range(4)
    )
    if (depths, dims) != (model.depths, model.dims):
        held, wanted = (
            f"a model of depths {size[0]} and dims {size[1]}"
            if (name := size_name(*size)) == "custom"
            else name
            for size in ((depths, dims), (model.depths, model.dims))
        )
        raise CheckpointError(
            f"{source}: holds {held}, but the model is {wanted}. Choose the matching model."
        )
