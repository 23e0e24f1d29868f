"""Write the page of a finished run or of an evaluation, by the kind of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from convnextv2.data.notices import say_left_out
from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.evaluation.intervals import with_intervals
from convnextv2.evaluation.page import write_page
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import MeasuredClassifier
from convnextv2.tasks.classification.report import classifier_page
from convnextv2.tasks.classification.teacher import summarise_teacher
from convnextv2.tasks.detection import report as detection
from convnextv2.tasks.detection.measure import MeasuredObjects
from convnextv2.tasks.measure import AnyEvaluation, AnyMeasured, measure
from convnextv2.tasks.multi_label.measure import MeasuredLabels
from convnextv2.tasks.multi_label.report import label_page
from convnextv2.tasks.page import page_of, run_page, summary_of
from convnextv2.tasks.segmentation import report as segmentation
from convnextv2.tasks.segmentation.measure import MeasuredMaps
from convnextv2.tasks.supervised.next_steps import next_steps
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights


class Learned(Protocol):
    """A task that has been learned, such as `Supervised` or `Dense`."""

    @property
    def description(self) -> Description:
        """The description of the network."""

    @property
    def validation(self) -> Source | None:
        """The validation images; None if there are none."""


def report_training(
    task: Learned, run: Run, place: Place, init: Weights | None = None
) -> AnyEvaluation | None:
    """Evaluate the best weights of a finished run on its validation images, and write its report.

    Args:
        task: The task that the run has learned.
        run: The run.
        place: This rank. The other ranks take no part in the report.
        init: The weights that the run was started from, if they are open.

    Returns:
        The evaluation, or None if there are no validation images.
    """
    recipe, kind, alone = run.recipe, task.description.kind, Place(place.device)
    teacher: Mapping[str, str] = {}
    # The page of an evaluation of several labels names no teacher.
    if kind != "multi_label" or task.validation is None:
        teacher = summarise_teacher(recipe, alone)
    if task.validation is None:
        write_page(run.report, _page_without_figures(kind, run, init, teacher))
        return None
    weights = open_run_weights(find_weights(run.path))
    measured = measure(weights, recipe, alone)
    if isinstance(measured, MeasuredClassifier):
        measured = replace(measured, evaluation=with_intervals(measured.evaluation))
    say_left_out(measured.skipped, "validation image")
    write_report(weights.path, measured, recipe, init, teacher)
    return measured.evaluation


def _page_without_figures(
    kind: str, run: Run, init: Weights | None, teacher: Mapping[str, str]
) -> str:
    """Build the page of a run that has no validation images."""
    name, recipe = str(run.path), run.recipe
    if kind == "segmentation":
        steps = segmentation.next_steps(name)
    elif kind == "detection":
        steps = detection.next_steps(name, recipe.lr)
    else:
        steps = next_steps(name, recipe.lr)
    summary = summary_of(recipe) | dict(teacher)
    return run_page(
        run, recipe, init, summary=summary, channels=recipe.in_channels, next_steps=steps
    )


def write_report(
    weights: Path,
    measured: AnyMeasured,
    recipe: Recipe,
    init: Weights | None = None,
    teacher: Mapping[str, str] = MappingProxyType({}),
    page_path: Path | None = None,
) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: The path of the weights that were evaluated.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
        teacher: Entries of the summary that say who the teacher of a classifier was; see
            `summarise_teacher`.
        page_path: Where to write it; None for the place that follows from the weights.

    Returns:
        The path of the page. Without `page_path`, it follows from the weights. For the weights of a
        run, it is report.html in the run folder, or report-DATA.html beside it if the data are not
        the run's own. For weights on their own, and for MindCV's files in a run, it is inside their
        folder, or beside the file under the same name. For an artifact, it is inside its folder.
        For weights in the cache of the Hub, it is in the current folder.
    """
    path, run = page_path or page_of(weights, recipe), run_of(weights)
    if isinstance(measured, MeasuredMaps):
        name = str(run.path if run else weights)
        page = segmentation.segmentation_page(run, measured, recipe, init, name)
    elif isinstance(measured, MeasuredObjects):
        page = detection.detection_page(run, measured, recipe, init)
    elif isinstance(measured, MeasuredLabels):
        page = label_page(run, measured, recipe, init)
    else:
        page = classifier_page(run, measured, recipe, init, teacher)
    write_page(path, page)
    return path
