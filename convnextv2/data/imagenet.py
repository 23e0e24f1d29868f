"""The WordNet ids and the names of the classes of ImageNet-1K.

The order is that of the heads of published models. The ids are those of the ILSVRC 2012 development
kit, sorted. The names are those of torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

CLASSES = 1000


@cache
def synsets() -> tuple[str, ...]:
    """Return the WordNet id of each class, such as n01440764."""
    text = files("convnextv2.data").joinpath("imagenet_synsets.txt").read_text("ascii")
    return tuple(text.split())


@cache
def categories() -> tuple[str, ...]:
    """Return the English name of each class.

    In some versions of torchvision, two pairs of classes have the same name, such as crane.
    """
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)


def imagenet_names(folders: Sequence[str]) -> dict[str, str] | None:
    """Return the names of the classes by WordNet id, if folders are those of ImageNet-1K.

    Args:
        folders: The names of the folders of a data set.

    Returns:
        The WordNet id -> the name, in the order of the classes; None unless the folders are exactly
        the 1,000 ids. If two classes have the same name, the id is added to both.
    """
    if set(folders) != set(synsets()):
        return None
    names = categories()
    return {
        wnid: f"{name} ({wnid})" if names.count(name) > 1 else name
        for wnid, name in zip(synsets(), names, strict=True)
    }


def imagenet_rows(classes: Sequence[str]) -> list[int] | None:
    """Find the rows of an ImageNet-1K head for classes of ImageNet.

    Args:
        classes: WordNet ids; or English names in any letter case, with "_" or " "; or names with
            ids as `imagenet_names` writes them.

    Returns:
        The row of each class; None if a class is not one of ImageNet, or matches two of them.
    """
    rows = {wnid: row for row, wnid in enumerate(synsets())}
    plain = [_plain(name) for name in categories()]
    rows |= {name: row for row, name in enumerate(plain) if plain.count(name) == 1}
    found = [rows.get(_identity(name), rows.get(_plain(name))) for name in classes]
    known = [row for row in found if row is not None]
    return known if len(known) == len(set(known)) == len(classes) else None


def _identity(name: str) -> str:
    """Return the id in a name such as "crane (n02012849)"; the name itself if it has none."""
    match = re.search(r"\((n\d{8})\)$", name)
    return match[1] if match else name


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").strip()
