"""Parts that the answers of several verbs share: the description of a key, and common keys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field


def means(meaning: str) -> Any:
    """Describe a key of an answer."""
    return Field(description=meaning)


WrittenPath = Annotated[str, means("The path that was written.")]
Sha256 = Annotated[str, means("SHA-256 of the weights, in hexadecimal.")]
Licence = Annotated[str, means("The requirements of the licence; empty if nothing is known.")]
HowPrepared = Annotated[
    dict[str, Any], means("The preprocessing of evaluation images; see `model.json`.")
]
Provenance = Annotated[dict[str, Any], means("The origin of the weights.")]
ClassNames = Annotated[list[str], means("The classes in the order of their numbers.")]
Lines = Annotated[list[str], means("Messages in words.")]
