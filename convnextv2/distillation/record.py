"""Records the teacher in the provenance of its student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convnextv2.distillation.teacher import Teacher
from convnextv2.errors import RunError
from convnextv2.training.start import Start, Way


def with_teacher(
    provenance: Mapping[str, Any], teacher: Teacher | None, start: Start
) -> dict[str, Any]:
    """Add the teacher to the provenance of a run.

    The requirements of the teacher's licence apply to the student too.

    Args:
        provenance: Where the run's own weights come from. For a run that is resumed, it contains
            the teacher already.
        teacher: The teacher; None without one.
        start: How the run starts.

    Raises:
        RunError: A run that is resumed had another teacher.
    """
    before = provenance.get("teacher")
    if start.way is Way.RESUME:
        _check_same(before, teacher, start)
    if teacher is None or teacher.record == before:
        return dict(provenance)
    notices = [str(provenance.get("notice", "")), str(teacher.record["notice"])]
    notice = " Teacher: ".join(dict.fromkeys(notice for notice in notices if notice))
    return {**provenance, "teacher": teacher.record, "notice": notice}


def _check_same(before: Mapping[str, Any] | None, teacher: Teacher | None, start: Start) -> None:
    then = str(before["sha256"])[:16] if before else "none"
    now = str(teacher.record["sha256"])[:16] if teacher else "none"
    if then != now and "teacher" not in (start.recipe.resume_allow or ()):
        raise RunError(
            f"teacher = {start.recipe.teacher!r}: the run had another one (sha256 {then} before, "
            f"{now} now). Give the one that it had, or start a new run with --init. "
            "--resume_allow teacher accepts the change."
        )
