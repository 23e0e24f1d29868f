"""The text of an augmentation policy, for example randaug-m9-mstd0.5-inc1: a name, then parts of a letter or word and a number.

It is the grammar of timm and MindCV. `POLICIES` holds all of it.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from convnextv2.errors import RecipeError


class Number(NamedTuple):
    """What may follow a key: its default and bounds."""

    default: float
    least: float
    most: float = math.inf
    whole: bool = False


_RANDAUG = {
    "m": Number(10, 0),
    "n": Number(2, 1, 13, whole=True),
    "w": Number(-1, 0, 0, whole=True),
    "mstd": Number(0.5, 0),
    "mmax": Number(10, 0),
    "inc": Number(0, 0, 1, whole=True),
}
_AUTOAUG = {"mstd": Number(0.5, 0)}

POLICIES: dict[str, dict[str, Number]] = {
    "randaug": _RANDAUG,
    "rand": _RANDAUG
    | {"mstd": Number(0, 0)},  # timm's name; there the magnitude only varies where mstd is given
    "autoaug": _AUTOAUG,
    "autoaugr": _AUTOAUG,
    "3a": _AUTOAUG,
    "augmix": {
        "m": Number(3, 0, 10),
        "w": Number(3, 1, whole=True),
        "d": Number(-1, -1, whole=True),
        "a": Number(1, 1e-3),
    },
    "trivialaugwide": {"m": Number(31, 2, whole=True)},
}
"""Name of a policy -> its keys. RandAugment: m magnitude, n operations per image, w 0 for weighted choice among them (-1: even),
mstd standard deviation of the magnitude (above 100: uniform from 0 to m), mmax its upper bound, inc 1 for operations that all
grow stronger with it. AugMix: m magnitude, w chains, d operations in each (-1: 1 to 3), a alpha. TrivialAugment: m number of
strengths."""


def parse(text: str) -> tuple[str, dict[str, float]]:
    """The policy's name and all of its numbers, the defaults filled in. Raises RecipeError naming the part that is wrong."""
    name, *parts = re.split(r"-(?=[a-z])", text.strip())  # the minus of d-1 stays
    if name not in POLICIES:
        raise RecipeError(
            f"auto_augment = {text!r}: unknown policy {name!r}. Expected one of {', '.join(POLICIES)}."
        )
    keys = POLICIES[name]
    numbers = {key: number.default for key, number in keys.items()}
    seen: set[str] = set()
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(-?\d+(?:\.\d*)?)", part)
        if match is None or match[1] not in keys:
            raise RecipeError(
                f"auto_augment = {text!r}: cannot read {part!r}. Expected a number after one of {', '.join(keys)}."
            )
        key, value = match[1], float(match[2])
        if key in seen:
            raise RecipeError(f"auto_augment = {text!r}: {key} is given twice. Keep one.")
        least, most, whole = keys[key].least, keys[key].most, keys[key].whole
        if (
            not least <= value <= most
            or (whole and value != int(value))
            or (key == "d" and value == 0)
        ):
            bounds = f">= {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            raise RecipeError(
                f"auto_augment = {text!r}: {part!r} is out of range. Expected a {'whole ' if whole else ''}number {bounds}."
            )
        seen.add(key)
        numbers[key] = value
    return name, numbers
