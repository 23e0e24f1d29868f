"""Put weights into a model, adapt what can be adapted, and report what happened to every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.weights.files import Description, read_weights


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor. loaded: names. adapted and left_out: name and what was done, or why. fresh: tensors of the
    model that keep their initial values."""

    loaded: list[str]
    adapted: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    fresh: list[str]

    def lines(self) -> list[str]:
        """For people: one line of counts, then one for each thing that is not plainly loaded."""
        lines = [
            f"{len(self.loaded)} tensors loaded, {len(self.adapted)} adapted, {len(self.left_out)} left out, {len(self.fresh)} "
            "new."
        ]
        lines += [f"  adapted   {name}: {what}" for name, what in self.adapted]
        grouped: dict[str, list[str]] = {}
        for name, why in self.left_out:
            grouped.setdefault(why, []).append(name)
        lines += [f"  left out  {_brief(names)}: {why}" for why, names in grouped.items()]
        if self.fresh:
            lines.append(f"  new       {_brief(self.fresh)}: initial values")
        return lines


def build_model(description: Description, *, drop_path_rate: float = 0.0) -> ConvNeXtV2 | FCMAE:
    """The model that a description describes, with random weights."""
    try:
        network = ConvNeXtV2(**description.arguments, drop_path_rate=drop_path_rate)
        return FCMAE(network, **description.fcmae) if description.kind == "fcmae" else network
    except TypeError as error:
        raise CheckpointError(
            f"the model description cannot be understood ({error}). Was it written by a newer version?"
        ) from error


def load_model(path: Path) -> tuple[ConvNeXtV2 | FCMAE, Description]:
    """The model in one of our weights files, in evaluation mode. Every tensor must be there and fit."""
    tensors, description = read_weights(path)
    model = build_model(description)
    own = model.state_dict()
    wrong = [name for name in own.keys() ^ tensors.keys()] + [
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit its own model description, for example {sorted(wrong)[0]}."
        )
    model.load_state_dict(tensors)
    return model.eval(), description


def load_encoder(model: ConvNeXtV2, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Start a classifier (or bare encoder) from weights of a classifier or of FCMAE.

    The encoder must be complete and of the model's size. Other numbers of input channels are adapted; a head of another number of
    classes, and FCMAE's decoder, are left out. Raises CheckpointError naming what does not fit."""
    if any(name.startswith("encoder.") for name in tensors):
        outside = {name: "part of the decoder" for name in tensors if not name.startswith("encoder.")}
        tensors = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    else:
        outside = {}
    own = model.state_dict()
    _check_size(model, tensors, source)

    loaded, adapted, left_out, chosen = [], [], list(outside.items()), {}
    for name, tensor in tensors.items():
        if name not in own:
            left_out.append((name, "the model has no such tensor"))
        elif tensor.shape == own[name].shape:
            chosen[name] = tensor
            loaded.append(name)
        elif name == "downsample_layers.0.0.weight" and tensor.shape[2:] == own[name].shape[2:]:
            chosen[name] = adapt_channels(tensor, own[name].shape[1])
            adapted.append((name, f"{tensor.shape[1]} input channels to {own[name].shape[1]}"))
        elif name.startswith("head."):
            left_out.append((name, f"a head of {len(tensor)} classes, the model has {model.num_classes}"))
        else:
            raise CheckpointError(
                f"{source}: {name} is {tuple(tensor.shape)}, the model wants {tuple(own[name].shape)} (stem_stride "
                f"{model.stem_stride})."
            )
    fresh = [name for name in own if name not in chosen]
    incomplete = [name for name in fresh if not name.startswith(("norm.", "head."))]
    if incomplete:
        raise CheckpointError(f"{source}: {len(incomplete)} tensors of the encoder are missing, for example {incomplete[0]}.")
    model.load_state_dict(chosen, strict=False)
    return LoadReport(loaded, adapted, left_out, fresh)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A stem weight (O, I, s, s) for another number of input channels: to 1 by the sum, else by repeating its channels and
    scaling by I / channels, so that the stem's response keeps its size (as timm does)."""
    known = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % known] * (known / channels)


def _check_size(model: ConvNeXtV2, tensors: Mapping[str, Tensor], source: str) -> None:
    blocks = {tuple(name.split(".")[1:3]) for name in tensors if name.startswith("stages.")}
    depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(4))
    dims = tuple(len(tensors[name]) if (name := f"stages.{i}.0.norm.weight") in tensors else 0 for i in range(4))
    if (depths, dims) != (model.depths, model.dims):
        raise CheckpointError(
            f"{source}: holds {_size_name(depths, dims)}, the model is {_size_name(model.depths, model.dims)}. Set the model "
            "to match."
        )


def _size_name(depths: tuple[int, ...], dims: tuple[int, ...]) -> str:
    names: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {size: name for name, size in SIZES.items()}
    return names.get((depths, dims), f"a model of depths {depths} and dims {dims}")


def _brief(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]} ({len(names)})"
