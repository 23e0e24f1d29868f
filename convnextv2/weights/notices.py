"""Tells users what the licences of weights require, from model cards and formats."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from convnextv2.weights.containers import Container
from convnextv2.weights.names import is_version_1

NOTICE = (
    "Meta's released ConvNeXt V2 weights are CC-BY-NC 4.0 (no commercial use), in every format; if "
    "these are derived from them, the same applies to these and to anything made from them."
)
"""Shown to users for ConvNeXt V2 weights that may be derived from Meta's."""

_DINOV3 = (
    "Weights in this layout are Meta's DINOv3 or EUPE. DINOv3's licence allows commercial use, but "
    "the agreement must travel with the weights and with anything made from them. EUPE's licence "
    "is for research only, without commercial use."
)
_LICENCES = {
    "dinov3": "It allows commercial use, but the agreement must travel with the weights and with "
    "anything made from them.",
    "noncommercial": "It allows no commercial use of the weights or of anything made from them.",
    "cc-by-nc": "It allows no commercial use of the weights or of anything made from them.",
}
"""Part of the name of a licence -> a sentence that says what the licence requires."""


def notice_of(key: str, container: Container, tensors: Mapping[str, Tensor]) -> str:
    """Say what the licence of weights requires.

    Args:
        key: The format, a key of `FORMATS`.
        container: The file with its model card, and with what an earlier conversion wrote into it.
        tensors: All tensors under the names of their format.

    Returns:
        A line; empty if nothing is known that would restrict the use of the weights.
    """
    told, licence = container.provenance.get("notice"), container.licence
    meant = next((text for part, text in _LICENCES.items() if part in licence.lower()), "")
    if is_version_1(key):
        usual = meant or ("" if licence or not _is_dino(key, tensors) else _DINOV3)
    else:
        usual = NOTICE
    if licence and licence not in (told or ""):
        # A file that was converted here states what is known, even if that is nothing.
        rest = usual if told is None else told
        return f"its model card says {licence}. {rest}".rstrip()
    if told is not None:
        return told
    return "" if key == "mindcv" else usual  # Meta released no weights in that format


def _is_dino(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights are in a layout that only DINOv3 and EUPE are published in."""
    return key == "dinov3-v1" or any(
        name.removeprefix("module.").startswith(("norms.3.", "projectors.")) for name in tensors
    )
