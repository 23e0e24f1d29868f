"""The JSON schema of recipe files, which editors use to complete and check them."""

from __future__ import annotations

from typing import Any

from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys

_OURS = ("group", "mindcv", "only", "idle", "unit")
"""Keys in the declaration of a knob that are not keywords of JSON schema."""


def json_schema() -> dict[str, Any]:
    """Describe recipe files, including MindCV's keys, in JSON schema draft 2020-12."""
    schema: dict[str, Any] = Recipe.model_json_schema()
    knobs = schema["properties"]
    foreign = {key: {"description": "A key of MindCV."} for key in sorted(keys.KEYS)}
    for name, about in knobs.items():
        said = {key: about.pop(key) for key in _OURS}
        if said["unit"]:
            about["description"] += f" Unit: {said['unit']}."
        if said["mindcv"]:
            foreign[said["mindcv"]] = {"description": f"MindCV's name for {name}."}
    knobs["time"]["type"] = ["string", "number"]  # a number of minutes
    whose = {
        "description": "Whose defaults apply to knobs that are left out.",
        "enum": ["mindcv", "convnextv2"],
    }
    schema["properties"] = {**knobs, "defaults": whose, **foreign}
    return schema
