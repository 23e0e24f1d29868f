"""The teacher of a run, measured on the validation images of its student."""

from __future__ import annotations

from torch import Tensor

from convnextv2.console import say
from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.sources import find_sources
from convnextv2.data.storage import StorageWait
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.data.workers import resolve_workers
from convnextv2.device import choose_precision
from convnextv2.distillation.lessons import teacher_rows
from convnextv2.distillation.teacher import Teacher, open_teacher
from convnextv2.distributed import Place
from convnextv2.errors import ConvNeXtV2Error
from convnextv2.evaluation.evaluate import evaluate
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.recipe.knobs import Recipe


def summarise_teacher(recipe: Recipe, place: Place) -> dict[str, str]:
    """Say who the teacher of a finished run was, and how good it is on the run's images.

    Args:
        recipe: The recipe of the run.
        place: This rank. The other ranks take no part in the report.

    Returns:
        Entries for the summary of the report; empty without a teacher. The figures are missing if
        it does not know the classes, or can no longer be opened, which is not the run's fault.
    """
    if not recipe.teacher:
        return {}
    summary = {"teacher": recipe.teacher}
    try:
        teacher = open_teacher(recipe.teacher, place.device, build_preprocessing(recipe))
        summary["teacher"] += f" ({teacher.record['model']})"
        evaluation = evaluate_teacher(teacher, recipe, place)
    except ConvNeXtV2Error as error:
        say(f"No figures of the teacher in the report: {error}")
        return summary
    if evaluation is not None:
        say(f"The teacher on the same images: top-1 {evaluation.top1:.2%}.")
        summary["teacher's top-1"] = f"{evaluation.top1:.2%}"
    return summary


def evaluate_teacher(teacher: Teacher, recipe: Recipe, place: Place) -> ClassifierEvaluation | None:
    """Evaluate a teacher on the validation images of its student, prepared as the teacher's own.

    Args:
        teacher: The teacher.
        recipe: The recipe of the student.
        place: This rank.

    Returns:
        The evaluation over the student's classes; None if the teacher does not know them, or there
        are no validation images.
    """
    training, validation = find_sources(recipe, labelled=True)
    rows, _ = teacher_rows(
        teacher, training.class_names, recipe.class_order, may_guess=recipe.distill != "auto"
    )
    if rows is None or validation is None:
        return None
    own = teacher.preprocessing
    normalise = normaliser(own)
    dtype = choose_precision(recipe.precision, place.device)
    loader = EvaluationLoader(
        validation,
        EvalTransform(own),
        batch_size=recipe.images_per_batch(),
        channels=own.channels,
        workers=resolve_workers(recipe.workers)[0],
        bad_images="fail" if recipe.bad_images == "fail" else "skip",
        storage_wait=StorageWait(recipe.data_wait_s),
    )

    def logits(images: Tensor) -> Tensor:
        with place.autocast(dtype):
            found = teacher.answer(images).logits
        assert found is not None, "it has rows"
        return found.float()[:, rows]

    return evaluate(
        logits,
        loader,
        num_classes=len(rows),
        to_images=lambda pixels: normalise(pixels.to(place.device)),
        place=place,
    )[0]
