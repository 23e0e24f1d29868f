"""The declaration of knobs: default, help text, unit and bounds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Knobs(BaseModel):
    """A group of knobs. A `Recipe` has the knobs of all groups."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def declare(
    default: Any,
    help: str,
    *,
    group: str,
    unit: str = "",
    mindcv: str = "",
    only: Literal["", "train", "pretrain"] = "",
    idle: tuple[str, ...] = (),
    **checks: Any,
) -> Any:
    """Declare a knob.

    Args:
        default: The value if the user does not set one.
        help: The help text, one or two sentences.
        group: The heading in `--help` that the knob is listed under.
        unit: The unit of its numbers.
        mindcv: MindCV's name for the knob if it differs. That name is accepted everywhere.
        only: The verb that uses the knob, train or pretrain. If empty, both do.
        idle: The conditions under which the knob has no effect, by their names in `IDLE_RULES`.
        **checks: Bounds of its numbers, under pydantic's names (ge, gt, le, lt).

    Returns:
        A pydantic field.
    """
    extra: dict[str, Any] = {"group": group, "unit": unit, "mindcv": mindcv, "only": only}
    extra["idle"] = list(idle)
    return Field(default, description=help, json_schema_extra=extra, **checks)
