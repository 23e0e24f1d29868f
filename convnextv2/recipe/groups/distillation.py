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
        "Model to learn from: a run folder, a weights file in any known format, OWNER/NAME on the "
        "Hugging Face Hub, a name that `models --weights` lists, or an exported artifact. It sees "
        "the same crops and mixed images as the student (docs/how-to/distil.md).",
    )
    distill: Literal["auto", "soft", "features", "both"] = _distil(
        "auto",
        "What to learn from the teacher: its soft labels (soft), for which it must have the same "
        "classes; its pooled features (features), through a linear layer that is discarded after "
        "training; or both. auto: soft if the teacher names the classes of the data, otherwise "
        "features.",
        only="train",
        idle=("no_teacher",),
    )
    distill_weight: float = _distil(
        1.0,
        "Weight of the teacher's part of the loss.",
        gt=0,
        le=1_000_000,
        idle=("no_teacher",),
    )
    distill_temperature: float = _distil(
        4.0,
        "Temperature by which the logits of teacher and student are divided before they are "
        "compared.",
        gt=0,
        le=1_000_000,
        only="train",
        idle=("no_teacher", "no_soft_labels"),
    )
    task_weight: float | None = _distil(
        None,
        "Weight of the part of the loss that needs no teacher. If empty, 0 with soft labels (the "
        "labels of the data are then unused, as in Beyer et al. 2022), and otherwise 1.",
        ge=0,
        le=1_000_000,
        idle=("no_teacher",),
    )
    unlabelled: str = _distil(
        "",
        "Folder of further training images. Their labels are not read; they are learned from the "
        "teacher only.",
        only="train",
    )
