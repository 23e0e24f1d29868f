"""Parses the text of an augmentation policy, such as randaug-m9-mstd0.5-inc1.

A text consists of the name of a policy and of parts that are a key and a number, joined by "-".
This is the grammar of timm and MindCV. `POLICIES` defines all names and keys.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from convnextv2.errors import RecipeError


class Number(NamedTuple):
    """The number that follows a key: its default and its bounds."""

    default: float
    min: float
    max: float = math.inf
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
    # timm's name. In timm, the magnitude is random only if mstd is given.
    "rand": _RANDAUG | {"mstd": Number(0, 0)},
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
"""The keys of each policy, by its name.

RandAugment: m is the magnitude, mmax its upper bound, and mstd its standard deviation (above 100,
the magnitude is uniform from 0 to m); n is the number of operations for an image; w is 0 for a
weighted choice of operations and -1 for a uniform one; inc is 1 if all operations become stronger
with the magnitude.

AugMix: m is the magnitude, w the number of chains, d the number of operations in each (-1 for 1 to
3), a the alpha of both distributions.

TrivialAugment: m is the number of strengths.
"""


def parse(text: str) -> tuple[str, dict[str, float]]:
    """Parse the text of a policy.

    Args:
        text: The policy, such as randaug-m9-mstd0.5-inc1.

    Returns:
        The name of the policy, and the number for each of its keys, including the defaults.

    Raises:
        RecipeError: A part of the text is wrong. The message names the part.
    """
    name, *parts = re.split(r"-(?=[a-z])", text.strip())  # which leaves the minus of d-1
    if name not in POLICIES:
        raise RecipeError(
            f"auto_augment = {text!r}: unknown policy {name!r}. Expected one of "
            f"{', '.join(POLICIES)}."
        )
    keys = POLICIES[name]
    numbers = {key: number.default for key, number in keys.items()}
    seen: set[str] = set()
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(-?\d+(?:\.\d*)?)", part)
        if match is None or match[1] not in keys:
            raise RecipeError(
                f"auto_augment = {text!r}: cannot read {part!r}. Expected a number after one of "
                f"{', '.join(keys)}."
            )
        key, value = match[1], float(match[2])
        if key in seen:
            raise RecipeError(f"auto_augment = {text!r}: {key} is given twice. Keep one.")
        low, high, whole = keys[key].min, keys[key].max, keys[key].whole
        if (
            not low <= value <= high
            or (whole and value != int(value))
            or (key == "d" and value == 0)
        ):
            bounds = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise RecipeError(
                f"auto_augment = {text!r}: {part!r} is out of range. Expected a "
                f"{'whole ' if whole else ''}number {bounds}."
            )
        seen.add(key)
        numbers[key] = value
    return name, numbers
