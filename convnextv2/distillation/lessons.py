"""The losses of a student against a teacher: soft labels, features, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.device import to_device
from convnextv2.distillation.losses import feature_loss, soft_label_loss
from convnextv2.distillation.teacher import Teacher
from convnextv2.errors import RecipeError
from convnextv2.evaluation.classes import match_rows, pairs
from convnextv2.evaluation.prior import prior_json, prior_of
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import init_weights
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.values import show


@dataclass(frozen=True, eq=False)
class Lessons:
    """The loss of a student that has a teacher.

    Attributes:
        teacher: The teacher.
        seen_by_student: How the student's images are normalised.
        rows: int64, the row of the teacher's head for each class of the student; None without soft
            labels.
        features: Whether the student's projection predicts the teacher's pooled features.
        weight: The weight of the losses against the teacher.
        temperature: The temperature of the soft labels.
        task_weight: The weight of the loss on the labels.
    """

    teacher: Teacher
    seen_by_student: Preprocessing
    rows: Tensor | None
    features: bool
    weight: float
    temperature: float
    task_weight: float

    def balance(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the frequencies of the classes for which the student's probabilities hold.

        With soft labels, these are the teacher's. With a loss on the labels as well, they are
        unknown.

        Args:
            own: The frequencies without a teacher; see `Description.balance`.

        Returns:
            The same for the student; empty if it is unknown.
        """
        if self.rows is None:
            return dict(own)
        if self.task_weight or not self.teacher.balance:
            return {}
        shares = prior_of(self.teacher.balance)[self.rows.numpy()]
        counts = own["class_counts"]
        if not shares.sum():
            return {}
        prior = prior_json(shares / shares.sum(), counts)
        return {"class_counts": counts, "prior": prior, "done": "the teacher's soft labels"}

    def loss(
        self, model: nn.Module, images: Tensor, task_loss: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            model: The student, which may be wrapped.
            images: float32 (N, C, H, W), normalised and mixed.
            task_loss: Maps the student's logits to the loss on the labels. It is not called if that
                loss has the weight 0.

        Returns:
            A scalar.
        """
        if self.features:
            logits, projected = model(images, projected=True)
        else:
            logits, projected = model(images), None
        answer = self.teacher(images, self.seen_by_student)
        loss = torch.zeros((), device=images.device)
        if self.rows is not None:
            assert answer.logits is not None
            wanted = answer.logits.index_select(1, to_device(self.rows, images.device))
            loss = loss + self.weight * soft_label_loss(logits, wanted, self.temperature)
        if projected is not None:
            loss = loss + self.weight * feature_loss(projected, answer.features)
        if self.task_weight:
            loss = loss + self.task_weight * task_loss(logits)
        return loss


def build_lessons(
    recipe: Recipe,
    teacher: Teacher,
    student: ConvNeXtV2,
    classes: Sequence[str],
    preprocessing: Preprocessing,
) -> Lessons:
    """Decide what the student learns from the teacher, and print it.

    Args:
        recipe: The recipe.
        teacher: The teacher.
        student: The student. If it learns features, it gets a projection with random weights.
        classes: The classes of the data, the first rows of the student's head.
        preprocessing: How the student's images are prepared.

    Raises:
        RecipeError: The recipe requires soft labels, but the teacher does not know the classes; or
            the head would learn nothing.
    """
    for line in teacher.lines:
        say(line)
    rows, why = teacher_rows(
        teacher, classes, recipe.class_order, may_guess=recipe.distill != "auto"
    )
    if rows is not None and student.num_classes != len(classes):
        rows = None
        why = f"num_classes = {student.num_classes}: soft labels need a class for each row"
    kind = recipe.distill
    if kind == "auto":
        kind = "features" if rows is None else "soft"
    if kind != "features" and rows is None:
        raise RecipeError(
            f"distill = {kind}: {teacher.name}: {why}. Use distill features, which needs no "
            "classes, or a teacher of the same classes."
        )
    soft, features = kind != "features", kind != "soft"
    if soft:
        _check_no_balance(recipe)
    task_weight = recipe.task_weight
    if task_weight is None:
        task_weight = 0.0 if soft else 1.0
    if not soft and not task_weight:
        raise RecipeError(
            "task_weight = 0: with features alone, the head learns only from the labels. Use a "
            "weight above 0, or pretrain --teacher, which has no head."
        )
    if features:
        student.projection = nn.Linear(student.dims[-1], teacher.width).apply(init_weights)
    what = {"soft": "soft labels", "features": "features", "both": "soft labels and features"}
    say(
        f"The teacher gives {what[kind]} ({why}). The loss on the labels has the weight "
        f"{task_weight:g}."
    )
    return Lessons(
        teacher,
        preprocessing,
        torch.tensor(rows) if soft and rows is not None else None,
        features,
        recipe.distill_weight,
        recipe.distill_temperature,
        task_weight,
    )


def _check_no_balance(recipe: Recipe) -> None:
    """Raise RecipeError for knobs that correct for the labels, since soft labels replace them."""
    for name, off in (("class_weights", "none"), ("logit_adjustment", 0), ("sampling", "natural")):
        if getattr(recipe, name) != off:
            raise RecipeError(
                f"{name} = {show(getattr(recipe, name))}: corrects for the frequencies of labels, "
                "but soft labels follow the frequencies that the teacher was trained on. Leave it "
                "out, train the teacher with it, or use distill features."
            )


def teacher_rows(
    teacher: Teacher, classes: Sequence[str], class_order: str, *, may_guess: bool
) -> tuple[list[int] | None, str]:
    """Find the row of the teacher's head for each class.

    Args:
        teacher: The teacher.
        classes: The classes of the data.
        class_order: The knob, which is used if the teacher does not name its rows.
        may_guess: Whether an order that is only a guess may be used.

    Returns:
        The rows, or None if not every class has one; and how they were found, or why not.
    """
    if not teacher.rows:
        return None, "it has no head that gives each image one class"
    order = "auto" if teacher.class_names else class_order
    match = match_rows(
        classes, teacher.class_names, teacher.rows, format=teacher.format, order=order
    )
    if isinstance(match, str):
        return None, f"of its classes, {match}"
    rows = [row for row in match.rows if row is not None]
    if len(rows) < len(classes):
        lost = classes[match.rows.index(None)]
        return None, f"class {lost!r} of the data is not among its {teacher.rows}"
    is_guess = order == "auto" and match.how.startswith("sorted")
    if is_guess and not may_guess:
        return None, "it does not name its classes; with distill soft they are taken as sorted"
    part = f"{len(rows)} of its {teacher.rows} classes" if len(rows) < teacher.rows else "classes"
    return rows, f"{part} {match.how}: {pairs(classes, match)}"
