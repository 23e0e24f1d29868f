"""UPerNet around a ConvNeXt in weights of MMSegmentation, of transformers, or of the official code.

All three use the same names for the heads' tensors, except for the norms and the classifiers. The
encoder's own names are those of the tables in `weights.names`. Sources: MMSegmentation's uper_head
and fcn_head (1.2.2), the official ConvNeXt's semantic_segmentation (048efce), transformers'
models/upernet (5.24).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from convnextv2.model.upernet import AUXILIARY_CHANNELS
from convnextv2.weights.description import Description

DENSE_NORM = re.compile(r"norm[0-3]\.|hidden_states_norms\.stage[1-4]\.")
"""Matches the names of the norms of the four feature maps, after the encoder's prefix."""

_BACKBONE = "backbone."
_HEAD = re.compile(r"(decode_head|auxiliary_head)\.")
_NORM = re.compile(r"\.(batch_norm|bn|gn)\.")
_USUAL_PX = 512
"""Side of the windows and of the shorter edge of images in the official recipes."""
_IDLE = ".num_batches_tracked"


@dataclass(frozen=True)
class UPerNet:
    """The part of a segmentor that lies around its encoder.

    Attributes:
        tensors: The norms of the four maps and the heads, by the names in a `Segmentor`.
        taken: The names of these tensors in the file.
        left_out: Name and reason of each tensor of a head that has no place in a `Segmentor`.
        num_classes: The number of classes.
        head: The arguments of the heads, as `Description.head` has them.
    """

    tensors: dict[str, Tensor]
    taken: frozenset[str]
    left_out: list[tuple[str, str]]
    num_classes: int
    head: dict[str, Any]

    def around(self, encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Join the encoder's tensors, by canonical name, to those of the whole `Segmentor`."""
        inner = {
            f"pyramid.encoder.{name}": tensor
            for name, tensor in encoder.items()
            if not name.startswith(("norm.", "head."))
        }
        return inner | self.tensors

    def describe(
        self, encoder: Description, class_names: list[str], *, has_processor: bool
    ) -> Description:
        """Describe the `Segmentor`.

        Args:
            encoder: The description of the encoder.
            class_names: The name of each class; empty if they are unknown.
            has_processor: Whether the image size in `encoder` was read from a processor's
                configuration.
        """
        usual = {} if has_processor else {"image_size": [_USUAL_PX, _USUAL_PX]}
        whole = {"eval_preset": "timm", "crop_pct": 1.0, "interpolation": "bilinear"}
        return replace(
            encoder,
            kind="segmentation",
            arguments=encoder.arguments | {"num_classes": self.num_classes},
            head=self.head,
            class_names=class_names,
            preprocessing=encoder.preprocessing | whole | usual,
        )

    def notes(self, notes: list[str], processor: Mapping[str, Any]) -> list[str]:
        """Correct the notes about a configuration, which were made for a classifier.

        Args:
            notes: Lines to print.
            processor: The content of preprocessor_config.json beside the weights; may be empty.

        Returns:
            The lines, without those about crops: a segmentor sees whole images.
        """
        kept = [line for line in notes if not line.startswith("Its processor ")]
        ratio = (
            "Its processor changes the aspect ratio of images; here they keep it, as in "
            "MMSegmentation."
        )
        return kept + [ratio] * bool(processor)

    def still_left_out(self, left_out: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Correct the list of left-out tensors, which was made by looking for an encoder only.

        Args:
            left_out: Name and reason of each tensor that is not of the encoder.
        """
        known = self.taken.union(name for name, _ in self.left_out)
        return [each for each in left_out if each[0] not in known] + self.left_out


def encoder_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a transformers configuration that describes the encoder of a UPerNet."""
    inner = config.get("backbone_config")
    return dict(inner) if isinstance(inner, Mapping) else {}


def find_upernet(tensors: Mapping[str, Tensor], prefix: str) -> UPerNet | None:
    """Find UPerNet's heads beside an encoder.

    Args:
        tensors: All tensors under the names of their format.
        prefix: The prefix of the encoder's names.

    Returns:
        The heads; None if there are none, or if they belong to another network. A number of classes
        of 0 stands for a classifier of an impossible shape.
    """
    if not prefix.endswith(_BACKBONE):
        return None
    wrapper = prefix.removesuffix(_BACKBONE)
    found = _heads(tensors, wrapper) | _map_norms(tensors, prefix)
    bottleneck = found.get("decode_head.bottleneck.conv.weight")
    classifier = found.get("decode_head.conv_seg.weight")
    if "decode_head.psp_modules.0.1.conv.weight" not in found or bottleneck is None:
        return None
    if classifier is None or any(f"pyramid.norms.{i}.weight" not in found for i in range(4)):
        return None
    has_batch_norm = "decode_head.bottleneck.norm.running_mean" in found
    odd = _odd_auxiliary(found)
    left_out = [
        (name, "an auxiliary head of another form, which helps in training only")
        for name in tensors
        if odd and name.startswith(f"{wrapper}auxiliary_head.")
    ]
    kept = {name: t for name, t in found.items() if not (odd and name.startswith("auxiliary"))}
    reasons = {name for name, _ in left_out}
    taken = {name for name in tensors if _is_of_heads(name, prefix, wrapper)} - reasons
    return UPerNet(
        kept,
        frozenset(taken),
        left_out,
        classifier.shape[0] if classifier.dim() == 4 else 0,
        {
            "channels": bottleneck.shape[0] if bottleneck.dim() == 4 else 0,
            "norm": "batch" if has_batch_norm else "group",
            "auxiliary": any(name.startswith("auxiliary_head.") for name in kept),
        },
    )


def has_map_norms(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Return whether an encoder was made for a dense network: each of its four maps has a norm.

    The last of these must not be taken for the norm before a classifier, which mmpretrain gives the
    same name.

    Args:
        tensors: All tensors under the names of their format.
        prefix: The prefix of the encoder's names.
    """
    return all(f"{prefix}norm{i}.weight" in tensors for i in range(4))


def _is_of_heads(name: str, prefix: str, wrapper: str) -> bool:
    """Return whether a tensor belongs to a head or to the norm of a map."""
    if name.startswith(prefix):
        return bool(DENSE_NORM.match(name.removeprefix(prefix)))
    return name.startswith(wrapper) and bool(_HEAD.match(name.removeprefix(wrapper)))


def _heads(tensors: Mapping[str, Tensor], wrapper: str) -> dict[str, Tensor]:
    """Rename the tensors of the heads."""
    found = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(wrapper)
        if name.startswith(wrapper) and _HEAD.match(bare) and not bare.endswith(_IDLE):
            renamed = _NORM.sub(".norm.", bare).replace(".classifier.", ".conv_seg.")
            found[renamed] = tensor
    return found


def _map_norms(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Rename the norms of the four maps."""
    found = {}
    for i in range(4):
        for theirs in (f"{prefix}norm{i}.", f"{prefix}hidden_states_norms.stage{i + 1}."):
            for kind in ("weight", "bias"):
                if theirs + kind in tensors:
                    found[f"pyramid.norms.{i}.{kind}"] = tensors[theirs + kind]
    return found


def _odd_auxiliary(found: Mapping[str, Tensor]) -> bool:
    """Return whether the auxiliary head differs in form from that of a `Segmentor`."""
    names = {name for name in found if name.startswith("auxiliary_head.")}
    convolution = found.get("auxiliary_head.convs.0.conv.weight")
    if not names or convolution is None:
        return bool(names)
    known = re.compile(r"auxiliary_head\.(convs\.0\.(conv|norm)|conv_seg)\.\w+$")
    is_usual = tuple(convolution.shape[::2]) == (AUXILIARY_CHANNELS, 3)
    return not is_usual or not all(known.match(name) for name in names)
