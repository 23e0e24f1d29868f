"""The knobs of distillation: the teacher, and what is learned from it."""

from __future__ import annotations

from functools import partial
from typing import Literal

from convnextv2.recipe.groups.declare import Knobs, declare

_distil = partial(declare, group="distillation")


class DistillationKnobs(Knobs):
    """The knobs of distillation: the teacher, and what is learned from it."""

    teacher: str = _distil(
        "",
        "Model to learn from: a run folder, a weights file of any known format, OWNER/NAME on the "
        "Hugging Face Hub, a name that `models --weights` lists, or an exported "
        "artifact. It sees the same crops and mixtures as the model that learns "
        "(docs/how-to/distil.md).",
    )
    distill: Literal["auto", "soft", "features", "both"] = _distil(
        "auto",
        "What to learn from the teacher: its soft labels, which needs a teacher of the same "
        "classes; its pooled features, through a linear layer that is not part of the result; or "
        "both. auto: soft if the teacher names the classes of the data, otherwise features.",
        only="train",
        idle=("no_teacher",),
    )
    distill_weight: float = _distil(
        1.0,
        "Weight of what the teacher says in the loss.",
        gt=0,
        le=1_000_000,
        idle=("no_teacher",),
    )
    distill_temperature: float = _distil(
        4.0,
        "Number by which all logits are divided before teacher and student are compared.",
        gt=0,
        le=1_000_000,
        only="train",
        idle=("no_teacher", "no_soft_labels"),
    )
    task_weight: float | None = _distil(
        None,
        "Weight of the loss without the teacher. If empty, it is 0 with soft labels (labels do "
        "not count then, as in Beyer et al. 2022), and otherwise 1.",
        ge=0,
        le=1_000_000,
        idle=("no_teacher",),
    )
    unlabelled: str = _distil(
        "",
        "Folder of further training images. Labels are not read; the teacher alone says what is "
        "learned from them.",
        only="train",
    )
