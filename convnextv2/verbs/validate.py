"""Evaluate a model on images with labels or annotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from convnextv2.console import print_json, say
from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.deploy.dense_card import SegmentorCard
from convnextv2.distributed import Place, joined
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.intervals import with_intervals
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.several_answers import (
    measure_answers,
    read_answers,
    read_file_of_answers,
)
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.kernels import choice
from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.recipe.knobs import Recipe, knobs_in_group
from convnextv2.recipe.options import PathLike, takes
from convnextv2.run import Run
from convnextv2.tasks.classification.coverage import check_coverage, measure_coverage
from convnextv2.tasks.classification.measure import MeasuredClassifier
from convnextv2.tasks.measure import AnyEvaluation, AnyMeasured, measure
from convnextv2.tasks.page import place_of_page
from convnextv2.tasks.report import write_report
from convnextv2.verbs.options.measuring import ValidateOptions
from convnextv2.weights.description import DENSE_KINDS
from convnextv2.weights.opened import Weights

_FIXED_IN_ARTIFACTS = {
    *("image_size", "in_channels", "value_range", "eval_preset", "interpolation", "crop_pct"),
    *("mean", "std", "antialias", "model", "slide", "test_scales", "test_flip"),
}
"""The knobs whose values are fixed in an artifact."""
_ANNOTATIONS = {"task", "classes", "ignore_values", "reduce_zero_label", "annotations"}
"""The knobs of dense tasks that say what annotations mean."""


@takes(ValidateOptions)
def validate(options: ValidateOptions) -> AnyEvaluation:
    """Evaluate a model on labelled or annotated images, print a table and write a report.

    The recipe of a run says which data are used and how they are prepared. An artifact prepares
    images in its own way, and uses the data of the run that it lies in. Knobs such as data_dir
    replace parts of that. Every image is counted exactly once, on any number of ranks. The main
    figures of a classifier have 95 % intervals. If the folder of the model cannot be written, the
    report is written to the current folder. With `coverage`, what `predict` reports about unknown
    images is fitted, stored beside the weights, and tested on other images.

    Returns:
        The figures.
    """
    given, config, fallbacks = _open(options)
    recipe, notes = options.recipe(config, fallbacks=fallbacks)
    choice.choose(recipe.kernels)
    opened = given or _open_init(recipe)
    with joined(recipe.device, recipe.distribute, timeout_s=recipe.rank_timeout_s) as (place, more):
        for note in notes + more:
            say(note)
        _check_sizes(opened, options.sizes)
        _check_answers(opened, options.answers)
        if options.coverage is not None:
            check_coverage(opened, recipe, options.coverage, options.prior)
        # A folder that cannot be written is found before anything is measured.
        page, moved = place_of_page(opened.path, recipe) if place.is_main else (None, "")
        measured = _measure(opened, recipe, place, options)
        _print(opened, measured)
        others = _with_answers(measured, place, options)
        others |= _at_sizes(opened, recipe, place, options)
        if recipe.mindcv_files and isinstance(measured.evaluation, ClassifierEvaluation):
            say(_mindcv_line(measured.evaluation))
        if place.is_main:
            page_recipe = _recipe_of(opened, recipe) if isinstance(opened, Artifact) else recipe
            report = write_report(opened.path, measured, page_recipe, page_path=page)
            if moved:
                say(moved)
            say(f"Report: {report}")
            print_json(_answer(opened, measured, report) | others)
    return measured.evaluation


def _open(
    options: ValidateOptions,
) -> tuple[Weights | Artifact | None, PathLike | None, dict[str, Any]]:
    """Open the model, and find the recipe that says how to validate it.

    Returns:
        The model, or None if `init` names it; a recipe file; and the values of knobs that neither
        the recipe nor the options set.

    Raises:
        RecipeError: An option would change the preprocessing that is fixed in an artifact.
    """
    run, config, knobs = options.run, options.config, options.knob_values
    fallbacks: dict[str, Any] = {}
    opened: Weights | Artifact | None = None
    if run is not None and is_artifact(run):
        opened = open_artifact(run)
        owner = run_of(opened.path)
        if config is None and owner is not None:
            fallbacks = _data_knobs(owner)
        elif config is None and opened.card.segmentation is not None:
            fallbacks = _map_knobs(opened.card.segmentation)
        if wrong := sorted(knobs.keys() & _FIXED_IN_ARTIFACTS):
            raise RecipeError(
                f"{wrong[0]} = {knobs[wrong[0]]}: an artifact prepares its images in its own way. "
                f"Leave {wrong[0]} out."
            )
    elif run is not None:
        opened = open_run_weights(find_weights(run))
        owner = run_of(opened.path)
        if config is None and owner is not None:
            config = owner.path / "recipe.yaml"
        if config is None:
            fallbacks = _preprocessing_knobs(opened)
    return opened, config, fallbacks


def _open_init(recipe: Recipe) -> Weights:
    """Open the weights that `init` names.

    Raises:
        CheckpointError: `init` is empty, or names no weights.
    """
    if not recipe.init:
        raise CheckpointError(
            "ckpt_path is missing: there are no weights to validate. Give --ckpt_path "
            "CHECKPOINT, or a run folder."
        )
    return open_run_weights(find_weights(recipe.init))


def _measure(
    opened: Weights | Artifact, recipe: Recipe, place: Place, options: ValidateOptions
) -> AnyMeasured:
    """Evaluate a model.

    A single-label classifier also gets 95 % intervals and, with `coverage`, the figures of its
    "unknown" answer.
    """
    measured = measure(opened, recipe, place, options.prior, options.tta)
    if not isinstance(measured, MeasuredClassifier):
        return measured
    evaluation = with_intervals(measured.evaluation)
    if options.coverage is not None:
        coverage = measure_coverage(opened, measured.source, recipe, place, options.coverage)
        evaluation = replace(evaluation, unknown=coverage)
    return replace(measured, evaluation=evaluation)


def _print(opened: Weights | Artifact, measured: AnyMeasured) -> None:
    """Print the notes about a measurement and its figures."""
    for note in measured.notes():
        say(note)
    say(f"Weights: {opened.path}")
    say(measured.evaluation.table())
    if not isinstance(measured, MeasuredClassifier):
        return
    if line := measured.evaluation.collapse_line():
        say(f"{opened.path}: {line}")
    if measured.evaluation.unknown is not None:
        say(measured.evaluation.unknown.line())


def _check_answers(opened: Weights | Artifact, file: PathLike) -> None:
    """Check a file of several right classes before anything is measured.

    Raises:
        RecipeError: The model is not a single-label classifier.
        DataError: The file cannot be read.
    """
    if not file:
        return
    card = opened.card if isinstance(opened, Artifact) else opened.description
    if card.kind != "classifier":
        raise RecipeError(
            f"answers = {file}: works only for single-label classifiers. Leave answers out."
        )
    read_file_of_answers(Path(file))


def _with_answers(measured: AnyMeasured, place: Place, options: ValidateOptions) -> dict[str, Any]:
    """Measure the accuracy if images have several right classes, and print a line.

    Returns:
        The figures under "answers"; empty without such a file.

    Raises:
        DataError: The file names none of the images, or an unknown class.
    """
    if not options.answers:
        return {}
    assert isinstance(measured, MeasuredClassifier), "_check_answers has checked that"
    answers = read_answers(
        Path(options.answers), measured.source.names, measured.description.class_names
    )
    found = measure_answers(measured.predictions, answers, place)
    say(
        f"The most probable class is one of the right ones in {found.top1:.2%} of {found.images:,} "
        f"images ({options.answers})."
    )
    return {"answers": found._asdict()}


def _at_sizes(
    opened: Weights | Artifact, recipe: Recipe, place: Place, options: ValidateOptions
) -> dict[str, Any]:
    """Measure a classifier at further image sizes, and print a line for each.

    Returns:
        The figures by size under "sizes"; empty without further sizes.

    Raises:
        RecipeError: The model is not a classifier, or its size is fixed.
    """
    if not options.sizes:
        return {}
    found: dict[str, Any] = {}
    for size in options.sizes:
        at = recipe.model_copy(update={"image_size": size})
        measured = measure(opened, at, place, options.prior, options.tta)
        assert isinstance(measured, MeasuredClassifier)
        evaluation = with_intervals(measured.evaluation)
        say(f"At {size} px:")
        say(evaluation.table())
        found[str(size)] = evaluation.to_dict()
    return {"sizes": found}


def _check_sizes(opened: Weights | Artifact, sizes: tuple[int, ...]) -> None:
    """Raise RecipeError unless the model is a classifier that takes images of these sizes."""
    if not sizes:
        return
    asked = f"sizes = {', '.join(map(str, sizes))}"
    if isinstance(opened, Artifact):
        raise RecipeError(
            f"{asked}: an artifact prepares its images in its own way. Give the run, or leave "
            "sizes out."
        )
    if opened.description.kind != "classifier":
        raise RecipeError(f"{asked}: works only for single-label classifiers. Leave sizes out.")
    stride = opened.description.total_stride
    if wrong := [size for size in sizes if not stride <= size <= LONGEST_SIDE_PX]:
        raise RecipeError(
            f"{asked}: expected numbers from {stride} to {LONGEST_SIDE_PX:,}, not {wrong[0]}."
        )


def _recipe_of(artifact: Artifact, recipe: Recipe) -> Recipe:
    """Return the recipe for the page of an artifact: that of its run, with the artifact's values.

    Args:
        artifact: The artifact.
        recipe: The recipe of this evaluation, which names the data.
    """
    owner, card, how = run_of(artifact.path), artifact.card, artifact.transform.preprocessing
    of_data = {name: getattr(recipe, name) for name in knobs_in_group("data")}
    stated = {
        "model": card.model,
        "depths": tuple(card.arguments["depths"]) if card.model == "custom" else None,
        "dims": tuple(card.arguments["dims"]) if card.model == "custom" else None,
        "image_size": how.image_size[0] if len(set(how.image_size)) == 1 else how.image_size,
    }
    base = owner.recipe if owner else recipe
    return base.model_copy(update=of_data | stated)


def _answer(opened: Weights | Artifact, measured: AnyMeasured, report: Path) -> dict[str, Any]:
    """Return the answer as `verbs.answers.validated` describes it."""
    return {
        "weights": str(opened.path),
        "report": str(report),
        "class_names": list(measured.description.class_names),
        "skipped": list(measured.skipped),
        **measured.evaluation.to_dict(),
    }


def _mindcv_line(evaluation: ClassifierEvaluation) -> str:
    """Format the figures like the last line of MindCV's validate.py, which scripts may read."""
    figures = {
        "Top_1_Accuracy": evaluation.top1,
        "Top_5_Accuracy": evaluation.top5,
        "loss": evaluation.loss,
    }
    return str({name: value for name, value in figures.items() if value is not None})


def _data_knobs(owner: Run) -> dict[str, Any]:
    """Return the knobs that say which images a run was validated on, and what is in them."""
    recipe, names = owner.recipe, ValidateOptions.knobs.keys()
    return {
        name: getattr(recipe, name)
        for name in names & (knobs_in_group("data") | _ANNOTATIONS) & recipe.model_fields_set
        if name not in _FIXED_IN_ARTIFACTS
    }


def _map_knobs(card: SegmentorCard) -> dict[str, Any]:
    """Return the knobs that say how to read label maps for a segmentor without a run."""
    knobs: dict[str, Any] = {"task": "segmentation", "reduce_zero_label": card.reduce_zero_label}
    if card.ignore_values is not None:
        knobs["ignore_values"] = tuple(card.ignore_values)
    return knobs


def _preprocessing_knobs(weights: Weights) -> dict[str, Any]:
    """Return the knobs that say how a weights file without a run prepares its images."""
    knobs = dict(weights.description.preprocessing)
    knobs["in_channels"] = knobs.pop("channels", 3)
    if weights.description.kind in DENSE_KINDS:
        knobs["task"] = weights.description.kind
        for name in ("crop_pct", "eval_preset"):  # whole images are resized
            knobs.pop(name, None)
    return knobs
