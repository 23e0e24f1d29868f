"""The classes of ImageNet-1K: their WordNet ids and their names.

They have the order of every published head. The ids are those of the ILSVRC 2012 development kit,
sorted; the names are torchvision's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

CLASSES = 1000


@cache
def synsets() -> tuple[str, ...]:
    """Return WordNet ids, such as n01440764, row by row."""
    text = files("convnextv2.data").joinpath("imagenet_synsets.txt").read_text("ascii")
    return tuple(text.split())


@cache
def categories() -> tuple[str, ...]:
    """Return names in English, row by row.

    In some versions, two pairs of classes share one, such as crane.
    """
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)


def imagenet_names(folders: Sequence[str]) -> dict[str, str] | None:
    """Name each class of ImageNet-1K, by its WordNet id.

    Args:
        folders: Names of the folders of a data set.

    Returns:
        Ids and names, in the order of the rows; None unless the folders are exactly the 1,000 ids.
        The id is added to a name that two classes share.
    """
    if set(folders) != set(synsets()):
        return None
    names = categories()
    return {
        wnid: f"{name} ({wnid})" if names.count(name) > 1 else name
        for wnid, name in zip(synsets(), names, strict=True)
    }


def imagenet_rows(classes: Sequence[str]) -> list[int] | None:
    """Find the rows of an ImageNet-1K head for classes that are called as ImageNet's.

    Args:
        classes: WordNet ids, names in English in any letter case, with "_" or " ", or both as
            `imagenet_names` writes them.

    Returns:
        The row of each class; None if one is not a class of ImageNet, or fits two.
    """
    rows = {wnid: row for row, wnid in enumerate(synsets())}
    plain = [_plain(name) for name in categories()]
    rows |= {name: row for row, name in enumerate(plain) if plain.count(name) == 1}
    found = [rows.get(_identity(name), rows.get(_plain(name))) for name in classes]
    known = [row for row in found if row is not None]
    return known if len(known) == len(set(known)) == len(classes) else None


def _identity(name: str) -> str:
    """Return the id in "crane (n02012849)", or the name as it is."""
    told = re.search(r"\((n\d{8})\)$", name)
    return told[1] if told else name


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").strip()
