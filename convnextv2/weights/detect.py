"""Recognises the format of weights by the names of their tensors."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from convnextv2.weights.names import FORMATS, VERSION_1

_AVERAGE = re.compile(r"(^|[._])(ema|averaged?|avg|swa|polyak|teacher)([._]|$)")


class Layout(NamedTuple):
    """The format of a set of weights, and where their names begin.

    Attributes:
        key: The format, a key of `FORMATS`.
        prefix: The prefix of the encoder's names, such as "", "module." or "backbone.".
    """

    key: str
    prefix: str

    @property
    def root(self) -> str:
        """The prefix of all names of the model, without the `outer` that its format adds."""
        return self.prefix.removesuffix(FORMATS[self.key].outer)


def detect(names: Iterable[str]) -> Layout | None:
    """Recognise the format of weights by the names of their tensors.

    If a file holds several sets of weights, the one with the shortest prefix is chosen, and an
    average only if there is nothing else.

    Args:
        names: The names of all tensors.

    Returns:
        The format and the prefix; None if the format is unknown.
    """
    found = detect_all(names)
    return found[0] if found else None


def detect_all(names: Iterable[str]) -> list[Layout]:
    """Recognise every set of weights by the names of the tensors.

    Args:
        names: The names of all tensors. A file from elsewhere may have a huge number of them, so no
            step compares each name with every other.

    Returns:
        The format and the prefix of each set, the shortest prefix first and averages last.
    """
    names = list(names)
    if any(name.endswith(".kernel") for name in names):
        order = ["official-sparse"]
    elif any(".depthwise_conv." in name for name in names):
        order = ["dinov3-v1", "mmpretrain"]
    else:
        order = ["timm", "transformers", "mindcv", "official", "torchvision-v1"]
    for key in order:
        if prefixes := _prefixes(key, names):
            grn = sorted(name for name in names if ".grn." in name)
            return [Layout(_with_version(key, prefix, grn), prefix) for prefix in prefixes]
    return []


def _prefixes(key: str, names: Sequence[str]) -> list[str]:
    """Return the prefix of the stem's name in each set of weights, in the order of `detect_all`."""
    anchor, needs = f"{FORMATS[key].stem_conv}.weight", FORMATS[key].needs
    found = [name.removesuffix(anchor) for name in names if name.endswith(anchor)]
    found = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    if needs:
        present = frozenset(names)
        found = [prefix for prefix in found if prefix + needs in present]
    return sorted(found, key=lambda prefix: (is_average(prefix), len(prefix)))


def _with_version(key: str, prefix: str, grn: Sequence[str]) -> str:
    """Return the key for the version of ConvNeXt that has a prefix.

    Weights without any GRN are of the first version, which may lack a layer scale.

    Args:
        key: The format, regardless of the version.
        prefix: The prefix.
        grn: The sorted names of all tensors of GRN. Those with the prefix are neighbours there.
    """
    if f"{key}{VERSION_1}" not in FORMATS:
        return key
    first = bisect_left(grn, prefix)
    has_grn = first < len(grn) and grn[first].startswith(prefix)
    return key if has_grn else f"{key}{VERSION_1}"


def is_average(name: str) -> bool:
    """Return whether a name denotes a moving average of weights.

    Args:
        name: A prefix of tensors' names, or the key of a checkpoint's entry.
    """
    return _AVERAGE.search(name) is not None


def depths_of(key: str, prefix: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Count the blocks of each stage by their depthwise convolutions, up to the first gap.

    Args:
        key: The format, a key of `FORMATS`.
        prefix: The prefix of the encoder's names.
        tensors: The tensors by the format's names.

    Returns:
        Four numbers.
    """
    form = FORMATS[key]
    depths = []
    for i in range(4):
        depth = 0
        while (
            f"{prefix}{form.block.format(i=i, j=depth, odd=2 * i + 1)}.{form.dwconv}.{form.kernel}"
            in tensors
        ):
            depth += 1
        depths.append(depth)
    return tuple(depths)
