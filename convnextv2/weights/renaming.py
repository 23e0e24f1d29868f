"""Gives tensors of another format their canonical names, or says why they are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.text import brief
from convnextv2.weights.detect import Layout
from convnextv2.weights.names import FORMATS, dense_kernel, library_of, name_table, to_canonical
from convnextv2.weights.upernet import DENSE_NORM, has_map_norms

HEAD = ("head.weight", "head.bias")

_TRAINING_STATE = re.compile(
    r"(adam_[mv]|ema|moments|moment[12]|lion_m|nadam_m|accum|stat)\.|"
    r"(global_step|beta[12]_power|learning_rate|updates|scale_sense|momentum|weight_decay|"
    r"epoch_num|step_num|current_iterator_step|last_overflow_iterator_step|n_averaged)$|ema_|"
    r"data_preprocessor\."
)
"""Matches the names of training state that some formats keep beside the weights."""

_MINDCV = re.compile(r"(feature|norm|classifier)\.")
"""Matches the names of MindCV's network. Its checkpoints also hold everything that the training
script kept beside the network."""

_BACKBONE_NORM = re.compile(r"norms\.\d+\.")
"""Matches the names of the norms that DINOv3's own files repeat for dense outputs."""

_DECODER = re.compile(r"(mask_token$|proj\.|decoder\.|pred\.)")
"""Matches the names of FCMAE's decoder."""

_OF_OUTPUTS = "norms of a backbone's outputs"


@dataclass(frozen=True)
class Renamed:
    """The tensors of a file, by the part of the network that they belong to.

    Attributes:
        network: The encoder, its norm and its head by canonical name.
        decoder: The tensors of FCMAE's decoder by canonical name; empty for other models.
        left_out: Name and reason of each tensor that is not part of the network.
    """

    network: dict[str, Tensor]
    decoder: dict[str, Tensor]
    left_out: list[tuple[str, str]]


def rename(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    depths: tuple[int, ...],
    path: Path,
    *,
    no_head: str,
) -> Renamed:
    """Give tensors their canonical names and shapes.

    Args:
        tensors: The tensors under the names of their format.
        layout: The format, and the prefix of its names.
        depths: The number of blocks in each stage.
        path: The file, for error messages.
        no_head: Why the head is left out; empty to keep it.

    Raises:
        CheckpointError: A tensor inside the network has a name that the format does not have.
    """
    key, prefix = layout
    table = name_table(key, depths, prefix)
    ours = {theirs: canonical for canonical, theirs in table.items()}
    wrapper = prefix.removesuffix("encoder.")
    may_have_decoder = "encoder." in prefix + FORMATS[key].outer
    is_dense = has_map_norms(tensors, prefix)
    network, decoder = {}, {}
    left_out: list[tuple[str, str]] = []
    unexpected = []
    for theirs, tensor in tensors.items():
        bare = theirs.removeprefix(wrapper)
        if no_head and (ours.get(theirs) in HEAD or bare.startswith("head.pre_logits.")):
            left_out.append((theirs, no_head))
        elif is_dense and DENSE_NORM.match(theirs.removeprefix(prefix)):
            left_out.append((theirs, _OF_OUTPUTS))
        elif theirs in ours:
            if theirs.endswith(".kernel"):
                tensor = _dense(theirs, tensor, path)
            network[ours[theirs]] = to_canonical(ours[theirs], tensor)
        elif may_have_decoder and _DECODER.match(bare):
            decoder[bare] = to_canonical(bare, tensor)
        elif reason := _why_left_out(theirs, bare, layout, prefix if is_dense else layout.root):
            left_out.append((theirs, reason))
        else:
            unexpected.append(theirs)
    if unexpected:
        raise CheckpointError(
            f"{path}: {len(unexpected)} tensors are not part of a ConvNeXt in the format of "
            f"{FORMATS[key].title}: {brief(unexpected)}."
        )
    return Renamed(network, decoder, left_out)


def _why_left_out(name: str, bare: str, layout: Layout, inside: str) -> str:
    """Return why a tensor is not part of the network; empty if it should be.

    Args:
        name: Its name.
        bare: The name without the wrapper's prefix.
        layout: The format, and the prefix of its names.
        inside: The prefix of the names of all tensors inside the network.
    """
    library = library_of(layout.key)
    is_of_mindcv = name.startswith(layout.prefix) and _MINDCV.match(bare)
    if _TRAINING_STATE.match(bare) or (library == "mindcv" and not is_of_mindcv):
        return "training state"
    if library in ("transformers", "dinov3") and "hidden_states_norms." in bare:
        return _OF_OUTPUTS
    if library == "official" and _BACKBONE_NORM.match(bare):
        return _OF_OUTPUTS
    if bare.startswith("projectors."):
        return "a projector used in its training"
    # The network was part of something larger, such as a detector, or a module with a loss.
    return "" if name.startswith(inside) else "beside the network"


def _dense(name: str, kernel: Tensor, path: Path) -> Tensor:
    """Check the shape of a sparse kernel, and convert it with `dense_kernel`."""
    side = round(kernel.shape[0] ** 0.5) if kernel.dim() in (2, 3) else 0
    if not side or side * side != kernel.shape[0]:
        raise CheckpointError(
            f"{path}: {name} is {tuple(kernel.shape)}, expected (k * k, in, out) or "
            "(k * k, channels)."
        )
    return dense_kernel(kernel)
