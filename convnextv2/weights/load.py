"""Open anyone's weights, put them into a model, adapt what can be adapted, and report what happened to every tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.text import plain
from convnextv2.weights.containers import Container, open_container
from convnextv2.weights.describe import describe, notice_of, size_name
from convnextv2.weights.files import Description, is_ours, read_description
from convnextv2.weights.names import (
    FORMATS,
    dense_kernel,
    depths_of,
    detect,
    detect_all,
    is_average,
    is_version_1,
    name_table,
    to_canonical,
)

OURS = "convnextv2"
_KINDS = ("classifier", "encoder", "fcmae")

_TRAINING_STATE = re.compile(
    r"(adam_[mv]|ema|moments|moment[12]|lion_m|nadam_m|accum|stat)\.|"
    r"(global_step|beta[12]_power|learning_rate|updates|scale_sense|momentum|weight_decay|epoch_num|step_num|current_iterator_step|"
    r"last_overflow_iterator_step|n_averaged)$|ema_|data_preprocessor\."
)
"""Names beside the weights that some formats are known to hold."""

_MINDCV = re.compile(r"(feature|norm|classifier)\.")
"""How the names of MindCV's network begin; its checkpoints hold whatever the training script kept beside it."""

_DECODER = re.compile(r"(mask_token$|proj\.|decoder\.|pred\.)")


@dataclass(frozen=True)
class Origin:
    """Where weights come from. format: a key of `FORMATS`, or "convnextv2". container: the kind of file. sha256: of it.
    notice: what its licence asks for; empty where nothing is known. nbytes: of all its files."""

    path: str
    format: str
    container: str
    sha256: str
    notice: str = ""
    nbytes: int = 0


@dataclass(frozen=True)
class Weights:
    """An opened weights file of any format: its tensors under canonical names, and what they describe.

    The file is read and hashed once, when it is opened. Whoever needs it later is given this object.

    Attributes:
        tensors: Canonical name to tensor, on the CPU.
        description: The network that the tensors belong to.
        origin: The file.
        left_out: Name and reason of each tensor that is not part of the network.
        notes: Lines for people about the weights.
        is_average: Whether these are the moving average that the file keeps beside its weights.
        container: The file's content under its own names; empty for weights that are no file.
    """

    tensors: dict[str, Tensor]
    description: Description
    origin: Origin
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_average: bool = False
    container: Container = field(default_factory=lambda: Container("", {}, []), repr=False)

    @property
    def path(self) -> Path:
        """The file or folder that was opened."""
        return Path(self.origin.path)

    @cached_property
    def has_average(self) -> bool:
        """Whether the file keeps a moving average of the weights beside them."""
        return not is_ours(self.container.metadata) and bool(_averaged_tensors(self.container))

    def average(self) -> Weights:
        """The moving average that the file keeps beside its weights, without reading it again.

        Raises:
            CheckpointError: The file has none.
        """
        return _interpret(self.container, self.path, average=True)

    def lines(self) -> list[str]:
        """For people: what the file is, what is to be known of it, and its licence; each a plain line, whatever it holds."""
        title = "convnextv2" if self.origin.format == OURS else FORMATS[self.origin.format].title
        lines = [
            f"{self.origin.path}: {title}, {self.origin.container}, sha256 {self.origin.sha256[:16]}"
        ]
        if self.has_average and not self.is_average:
            lines.append(
                "An average of the weights is beside them and not used; convert --ema takes it."
            )
        return [
            *map(
                plain,
                lines + self.notes + [f"Licence: {self.origin.notice}"] * bool(self.origin.notice),
            )
        ]

    def provenance(self) -> dict[str, Any]:
        """What must be written into whatever is made of them; what they themselves were made of counts first."""
        known = {name: value for name, value in self.description.provenance.items() if value}
        return {
            "format": self.origin.format,
            "sha256": self.origin.sha256,
            "notice": self.origin.notice,
        } | known


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
        lines += [f"  left out  {brief(names)}: {why}" for why, names in grouped.items()]
        if self.fresh:
            lines.append(f"  new       {brief(self.fresh)}: initial values")
        return lines


def open_weights(path: Path, *, average: bool = False) -> Weights:
    """Open a weights file or Hub folder of any known format.

    Names become canonical ones, and the size, channels, classes and the rest are inferred.

    Args:
        path: The file or folder.
        average: Whether to take the moving average that a training checkpoint of MindCV ("ema.") or
            of PyTorch code keeps beside its weights.

    Raises:
        CheckpointError: The format is unknown, a tensor is missing, unexpected or of the wrong
            shape, there is no average, or the file is damaged.
    """
    return _interpret(open_container(path), path, average=average)


def _interpret(container: Container, path: Path, *, average: bool) -> Weights:
    """Find out what a container holds; see `open_weights`."""
    if is_ours(container.metadata):
        if average:
            raise CheckpointError(
                f"{path}: has no average beside its weights. Use best/ or last/ of the run."
            )
        description = read_description(container.metadata, path)
        _check_complete(container.tensors, description, path)
        notice = str(description.provenance.get("notice", ""))
        origin = _origin(path, OURS, container, notice)
        return Weights(container.tensors, description, origin, container=container)
    tensors = container.tensors
    if average:
        tensors = _averaged_tensors(container)
        if not tensors:
            raise CheckpointError(f"{path}: no averaged weights in it. Use its plain weights.")
    found = detect(tensors)
    if found is None:
        raise CheckpointError(
            f"{path}: not a ConvNeXt V2 of any known format ({_held(tensors, container)})."
        )
    key, prefix = found
    if is_version_1(tensors):
        raise CheckpointError(
            f"{path}: is a ConvNeXt of the first version (layer scale, no GRN), not a ConvNeXt V2."
        )
    depths = depths_of(key, prefix, tensors)
    if 0 in depths:
        raise CheckpointError(
            f"{path}: stage {depths.index(0) + 1} of 4 has no blocks in it, so the encoder is not complete."
        )
    canonical, decoder, left_out = _rename(tensors, key, prefix, depths, path)
    description, notes = describe(canonical, decoder, key, depths, container)
    if decoder:
        canonical = {f"encoder.{name}": tensor for name, tensor in canonical.items()} | decoder
    _check_complete(canonical, description, path)
    return Weights(
        canonical,
        description,
        _origin(path, key, container, notice_of(key, container)),
        left_out + container.beside,
        container.notes + notes,
        average,
        container,
    )


def _origin(path: Path, format: str, container: Container, notice: str) -> Origin:
    return Origin(str(path), format, container.title, container.sha256, notice, container.nbytes())


def _averaged_tensors(container: Container) -> dict[str, Tensor]:
    """The moving average of the weights in a container; empty if it has none."""
    return container.average or _average_beside(container.tensors)


def _average_beside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The average of the weights among the same names, such as MindCV's "ema." or a wrapper's "model_ema."; empty where there is
    none, or nothing else."""
    found = detect_all(tensors)
    if not found or is_average(found[0][1]):
        return {}
    for key, prefix in found:
        if is_average(prefix):
            root = prefix.removesuffix(FORMATS[key].outer)
            return {
                name.removeprefix(root): tensor
                for name, tensor in tensors.items()
                if name.startswith(root)
            }
    return {}


def build_model(description: Description, *, drop_path_rate: float = 0.0) -> ConvNeXtV2 | FCMAE:
    """Build the model that a description describes, with random weights.

    Raises:
        CheckpointError: It belongs to a task that this version does not know, or cannot be built.
    """
    if description.kind not in _KINDS:
        raise CheckpointError(
            f"kind = {description.kind}: weights of a task that this version does not know, expected "
            f"one of {', '.join(_KINDS)}. Use the program that wrote them."
        )
    try:
        network = ConvNeXtV2(**description.arguments, drop_path_rate=drop_path_rate)
        return FCMAE(network, **description.fcmae) if description.kind == "fcmae" else network
    except (TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"the model description cannot be understood ({brief([str(error).strip().split(chr(10))[0]])}). Was it written by a "
            "newer version?"
        ) from error


def load_model(path: Path) -> tuple[ConvNeXtV2 | FCMAE, Description]:
    """The model in a weights file of any format, in evaluation mode. Every tensor must be there and fit."""
    weights = open_weights(path)
    return restore(weights), weights.description


def restore(weights: Weights) -> ConvNeXtV2 | FCMAE:
    """The model of opened weights, in evaluation mode."""
    model = build_model(weights.description)
    own, tensors = model.state_dict(), weights.tensors
    wrong = [name for name in own.keys() ^ tensors.keys()] + [
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{weights.origin.path}: {len(wrong)} tensors do not fit its own model description, for example {sorted(wrong)[0]}."
        )
    model.load_state_dict(tensors)
    return model.eval()


def load_encoder(model: ConvNeXtV2, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Start a classifier (or bare encoder) from weights of a classifier or of FCMAE, by canonical names.

    The encoder must be complete and of the model's size. Other numbers of input channels are adapted; a head of another number of
    classes, and FCMAE's decoder, are left out. Raises CheckpointError naming what does not fit."""
    if any(name.startswith("encoder.") for name in tensors):
        outside = {
            name: "part of the decoder" for name in tensors if not name.startswith("encoder.")
        }
        tensors = {
            name.removeprefix("encoder."): tensor
            for name, tensor in tensors.items()
            if name.startswith("encoder.")
        }
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
            left_out.append(
                (name, f"a head of {len(tensor)} classes, the model has {model.num_classes}")
            )
        else:
            raise CheckpointError(
                f"{source}: {name} is {tuple(tensor.shape)}, the model wants {tuple(own[name].shape)} (stem_stride "
                f"{model.stem_stride})."
            )
    fresh = [name for name in own if name not in chosen]
    incomplete = [name for name in fresh if not name.startswith(("norm.", "head."))]
    if incomplete:
        raise CheckpointError(
            f"{source}: {len(incomplete)} tensors of the encoder are missing, for example {incomplete[0]}."
        )
    model.load_state_dict(chosen, strict=False)
    return LoadReport(loaded, adapted, left_out, fresh)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A stem weight (O, I, s, s) for another number of input channels: to 1 by the sum, else by repeating its channels and
    scaling by I / channels, so that the stem's response keeps its size (as timm does)."""
    known = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % known] * (known / channels)


def brief(names: list[str]) -> str:
    """A few names, or the first and last of many; on one line whatever a file holds."""
    shown = [
        name if name.isprintable() and len(name) < 100 else ascii(name)[:100]
        for name in names[:3] + names[-1:]
    ]
    return (
        ", ".join(shown[: len(names)])
        if len(names) <= 3
        else f"{shown[0]} ... {shown[-1]} ({len(names)})"
    )


def _rename(
    tensors: Mapping[str, Tensor], key: str, prefix: str, depths: tuple[int, ...], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[str, str]]]:
    """Canonical tensors of encoder, norm and head; those of FCMAE's decoder; what is left out and why."""
    ours = {theirs: canonical for canonical, theirs in name_table(key, depths, prefix).items()}
    wrapper, root = prefix.removesuffix("encoder."), prefix.removesuffix(FORMATS[key].outer)
    canonical, decoder = {}, {}
    left_out: list[tuple[str, str]] = []
    unexpected = []
    for theirs, tensor in tensors.items():
        bare = theirs.removeprefix(wrapper)
        if theirs in ours:
            if theirs.endswith(".kernel"):
                tensor = _dense(theirs, tensor, path)
            canonical[ours[theirs]] = to_canonical(ours[theirs], tensor)
        elif "encoder." in prefix + FORMATS[key].outer and _DECODER.match(bare):
            decoder[bare] = to_canonical(bare, tensor)
        elif _TRAINING_STATE.match(bare) or (
            key == "mindcv" and not (theirs.startswith(prefix) and _MINDCV.match(bare))
        ):
            left_out.append((theirs, "training state"))
        elif key == "transformers" and "hidden_states_norms." in theirs:
            left_out.append((theirs, "norms of a backbone's outputs"))
        elif not theirs.startswith(
            root
        ):  # a loss, a metric, another head of whatever the network was a part of
            left_out.append((theirs, "beside the network"))
        else:
            unexpected.append(theirs)
    if unexpected:
        raise CheckpointError(
            f"{path}: {len(unexpected)} tensors are no part of a ConvNeXt V2 in the format of {FORMATS[key].title}: "
            f"{brief(unexpected)}."
        )
    return canonical, decoder, left_out


def _held(tensors: Mapping[str, Tensor], container: Container) -> str:
    example = f", such as {brief([next(iter(tensors))])}" if tensors else ""
    beside = [
        f"{name} ({what})" if what.startswith("Python object") else name
        for name, what in container.beside
    ]
    return f"{len(tensors)} tensors{example}" + (f"; beside them {brief(beside)}" if beside else "")


def _dense(name: str, kernel: Tensor, path: Path) -> Tensor:
    side = round(kernel.shape[0] ** 0.5) if kernel.dim() in (2, 3) else 0
    if not side or side * side != kernel.shape[0]:
        raise CheckpointError(
            f"{path}: {name} is {tuple(kernel.shape)}, expected (k * k, in, out) or (k * k, channels)."
        )
    return dense_kernel(kernel)


def _check_complete(tensors: Mapping[str, Tensor], description: Description, path: Path) -> None:
    """Every tensor of the described model is there in its shape. CheckpointError names what is not."""
    arguments = description.arguments
    try:  # nothing is built that the tensors do not fill
        numbers = [*arguments["dims"], *arguments["depths"], arguments["in_channels"]]
        blocks = sum(arguments["depths"])
        if description.kind == "fcmae":
            numbers += [description.fcmae["decoder_dim"], description.fcmae["decoder_depth"]]
            blocks += description.fcmae["decoder_depth"]
        plausible = (
            min(numbers) >= 1 and blocks <= len(tensors) and arguments["stem_stride"] in (1, 2, 4)
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its model description cannot be understood ({error!r})."
        ) from error
    if not plausible:
        raise CheckpointError(
            f"{path}: its tensors describe no ConvNeXt V2 (depths {arguments['depths']}, channels {arguments['dims']} for images "
            f"of {arguments['in_channels']}, stem stride {arguments['stem_stride']})."
        )
    with torch.device("meta"):
        expected = build_model(description).state_dict()
    if missing := [name for name in expected if name not in tensors]:
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing: {brief(missing)}.")
    if unexpected := [name for name in tensors if name not in expected]:
        raise CheckpointError(
            f"{path}: {len(unexpected)} tensors have no place in the model: {brief(unexpected)}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            wanted = tuple(expected[name].shape)
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, expected {wanted} of floats."
            )


def _check_size(model: ConvNeXtV2, tensors: Mapping[str, Tensor], source: str) -> None:
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
            f"{source}: holds {held}, the model is {wanted}. Set the model to match."
        )
