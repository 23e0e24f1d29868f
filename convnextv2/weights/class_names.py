"""Reads the class names in configurations, and makes class names distinct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def class_names(config: Mapping[str, Any], num_classes: int) -> list[str]:
    """Read the class names in a configuration.

    Args:
        config: The configuration of timm or transformers.
        num_classes: The number of classes.

    Returns:
        The names; empty unless there is one for each class.
    """
    names = config.get("id2label") or config.get("label_names") or config.get("labels")
    if isinstance(names, dict):
        names = [names.get(str(i)) for i in range(num_classes)]
    if (
        not isinstance(names, list)
        or len(names) != num_classes
        or not all(isinstance(name, str) for name in names)
    ):
        return []
    # transformers writes these names if none were given.
    return [] if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def distinct(names: list[str]) -> list[str]:
    """Make equal names distinct by their index; ImageNet has two classes "crane", for example.

    Args:
        names: The class names, row by row.

    Returns:
        The names, with the index in brackets after each name that occurs more than once.
    """
    count = Counter(names)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
