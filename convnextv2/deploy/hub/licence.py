"""Choose the licence of a model that was made from other weights, as the Hub names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from convnextv2.errors import RecipeError

_PERMISSIVE = frozenset(
    ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "0bsd")
)
"""Licences that allow another licence for models that are made from the weights."""


_KNOWN = _PERMISSIVE | frozenset(
    (
        *("afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bigscience-openrail-m", "openrail"),
        *("cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
        *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
        *("cc-by-nc-sa-4.0", "ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2"),
        *("agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "mpl-2.0"),
        *("ms-pl", "ncsa", "osl-3.0", "postgresql", "wtfpl", "zlib", "other"),
    )
)


def is_known(licence: str) -> bool:
    """Return whether the Hub knows an identifier. Others are written as "other", with a name."""
    return licence in _KNOWN


def licence_id(provenance: Mapping[str, Any], notice: str, asked: str) -> str:
    """Choose the licence of a model card.

    Args:
        provenance: The origin of the weights, as returned by `Weights.provenance`.
        notice: The notice that their licence requires; empty if nothing is known.
        asked: The licence that the user named; empty for none.

    Returns:
        An identifier of the Hub, such as cc-by-nc-4.0. "other" if there is a notice without one.
        Empty if nothing is known and nothing was named.

    Raises:
        RecipeError: The licence of the weights does not allow the one that the user named.
    """
    known = next((str(one["licence"]) for one in _origins(provenance) if one.get("licence")), "")
    if asked and known and known.lower() not in _PERMISSIVE and asked.lower() != known.lower():
        raise RecipeError(
            f"license = {asked}: the weights that it was made from are under {known}, which "
            "applies to it too. Leave license out."
        )
    if asked or known:
        return asked or known
    if "CC-BY-NC 4.0" in notice:
        return "cc-by-nc-4.0"
    return "other" if notice else ""


def _origins(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the provenance of a model, of the weights it was started from, and so on."""
    seen = 0
    while isinstance(provenance, Mapping) and provenance and seen < 100:
        yield provenance
        provenance, seen = provenance.get("init") or {}, seen + 1
