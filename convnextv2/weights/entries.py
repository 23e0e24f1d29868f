"""Finds which entries of a checkpoint are the weights.

Training code saves its state under any name: `model`, `state_dict`, `net`, or `ema` with `module`
in it. Weights are therefore recognised by their content: the tensors must have the names of a known
format. The names of entries only decide between several candidates, and distinguish averages from
plain weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from convnextv2.weights.detect import detect, is_average
from convnextv2.weights.pickle_values import Entries, Foreign, OddTensor, Record

_DEEPEST = 3
_PREFERRED = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "model_state",
    "net",
    "network",
    "params",
    "weights",
    "student",
)
_PREFERRED_AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")


@dataclass(frozen=True)
class Entry:
    """A dictionary of tensors inside a checkpoint.

    Attributes:
        keys: The keys that lead to it from the top level.
        tensors: Its tensors by name.
        attributes: The attributes that were set on the dictionary, or None.
    """

    keys: tuple[str, ...]
    tensors: dict[str, Record | OddTensor]
    attributes: Entries | None

    @property
    def name(self) -> str:
        """The keys with dots between them; empty for the top level."""
        return ".".join(self.keys)

    @property
    def is_average(self) -> bool:
        """True if the keys name a moving average."""
        return is_average(self.name)


@dataclass(frozen=True)
class Chosen:
    """The entries to take from a checkpoint.

    Attributes:
        weights: The entry with the weights. If none is of a known format, the most likely one.
        average: Their moving average, or None.
        others: Further entries with weights of a known format.
        beside: The name of each other entry on the path to them, and what it is.
    """

    weights: Entry
    average: Entry | None
    others: list[Entry]
    beside: list[tuple[str, str]]


def choose(content: Entries) -> Chosen:
    """Find the weights in the content of a checkpoint.

    Args:
        content: The whole content.

    Returns:
        The choice. If there is only an average, it counts as the weights.
    """
    found = sorted(_entries(content), key=_rank)
    known = [entry for entry in found if detect(entry.tensors)] or found[:1]
    plain = [entry for entry in known if not entry.is_average]
    averages = [entry for entry in known if entry.is_average]
    weights = (plain or averages or [Entry((), {}, None)])[0]
    average = averages[0] if averages and plain else None
    others = [entry for entry in known if entry is not weights and entry is not average]
    return Chosen(weights, average, others, _beside(content, [weights, *known]))


def _entries(content: Entries) -> Iterator[Entry]:
    """Yield every dictionary that holds tensors, each once, down to a depth of `_DEEPEST` keys."""
    level: list[tuple[tuple[str, ...], Entries]] = [((), content)]
    seen = {id(content)}
    for _ in range(_DEEPEST + 1):
        below: list[tuple[tuple[str, ...], Entries]] = []
        for keys, entries in level:
            named = {name: value for name, value in entries.items() if isinstance(name, str)}
            tensors = {
                name: value
                for name, value in named.items()
                if isinstance(value, Record | OddTensor)
            }
            if tensors:
                yield Entry(keys, tensors, entries.attributes)
            for key, value in named.items():
                if isinstance(value, Entries) and id(value) not in seen:
                    seen.add(id(value))
                    below.append(((*keys, key), value))
        level = below


def _rank(entry: Entry) -> tuple[int, int]:
    """Return the sort key of `choose`: the most usual names first, then the shortest path."""
    order = _PREFERRED_AVERAGES if entry.is_average else _PREFERRED
    first = entry.keys[0] if entry.keys else ""
    place = -1 if not entry.keys else order.index(first) if first in order else len(order)
    return place, len(entry.keys)


def _beside(content: Entries, taken: list[Entry]) -> list[tuple[str, str]]:
    """Name what lies beside the taken entries at each step of their paths, and say what it is."""
    paths = {entry.keys for entry in taken}
    steps = {path[:length] for path in paths for length in range(len(path) + 1)}
    found = []
    for step in sorted(steps):
        entries: Any = content
        for key in step:
            entries = entries[key]
        for key, value in entries.items():
            inner = (*step, str(key))
            is_weight = step in paths and isinstance(value, Record | OddTensor)
            if not is_weight and inner not in steps and inner != ("provenance",):
                found.append((".".join(inner), _what(value)))
    return found


def _what(value: Any) -> str:
    return (
        f"Python object {value.name}"
        if isinstance(value, Foreign) and "." in value.name
        else "not weights"
    )
