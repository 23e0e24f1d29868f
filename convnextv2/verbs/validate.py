"""Evaluate a classifier on labelled images."""

from __future__ import annotations

from typing import Any

from convnextv2.console import say
from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.distributed import joined
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import group_of
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import evaluate_weights
from convnextv2.tasks.classification.report import write_evaluation_report
from convnextv2.verbs.options import ValidateOptions
from convnextv2.weights.opened import Weights

_IN_THE_ARTIFACT = {
    *(
        "image_size",
        "in_channels",
        "value_range",
        "eval_preset",
        "interpolation",
        "crop_pct",
        "mean",
        "std",
        "antialias",
        "model",
    )
}


@takes(ValidateOptions)
def validate(options: ValidateOptions) -> Evaluation:
    """Evaluate a classifier on labelled images, print a table and write a report.

    The recipe of a run says which data are used and how they are prepared. An artifact prepares
    images in its own way, and uses the data of the run that it lies in. Knobs such as data_dir
    replace parts of that. Every image is counted exactly once, on any number of ranks.

    Returns:
        The figures.
    """
    run, config, knobs = options.run, options.config, options.knob_values
    beneath: dict[str, Any] = {}
    opened: Weights | Artifact | None = None
    if run is not None and is_artifact(run):
        opened = open_artifact(run)
        owner = run_of(opened.path)
        if config is None and owner is not None:
            beneath = _data_knobs(owner)
        if wrong := sorted(knobs.keys() & _IN_THE_ARTIFACT):
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
            beneath = _preprocessing_knobs(opened)
    recipe, notes = options.recipe(config, beneath=beneath)
    choice.choose(recipe.kernels)
    if opened is None:
        if not recipe.init:
            raise CheckpointError(
                "ckpt_path is missing: there are no weights to validate. Give --ckpt_path "
                "CHECKPOINT, or a run folder."
            )
        opened = open_run_weights(find_weights(recipe.init))
    with joined(recipe.device, recipe.distribute, timeout_s=recipe.rank_timeout_s) as (place, more):
        for note in notes + more:
            say(note)
        measured = evaluate_weights(opened, recipe, place)
        for note in measured.notes():
            say(note)
        say(f"Weights: {opened.path}")
        say(measured.evaluation.table())
        if recipe.mindcv_files:
            say(_mindcv_line(measured.evaluation))
        if place.is_main:
            say(f"Report: {write_evaluation_report(opened.path, measured, recipe)}")
    return measured.evaluation


def _mindcv_line(evaluation: Evaluation) -> str:
    """Write the figures as the last line of MindCV's validate.py, which scripts may read."""
    figures = {
        "Top_1_Accuracy": evaluation.top1,
        "Top_5_Accuracy": evaluation.top5,
        "loss": evaluation.loss,
    }
    return str({name: value for name, value in figures.items() if value is not None})


def _data_knobs(owner: Run) -> dict[str, Any]:
    """Return the knobs that say which images a run was validated on."""
    recipe = owner.recipe
    return {
        name: getattr(recipe, name)
        for name in ValidateOptions.knobs.keys() & group_of("data") & recipe.model_fields_set
        if name not in _IN_THE_ARTIFACT
    }


def _preprocessing_knobs(weights: Weights) -> dict[str, Any]:
    """Return the knobs that say how a weights file without a run prepares its images."""
    knobs = dict(weights.description.preprocessing)
    knobs["in_channels"] = knobs.pop("channels", 3)
    return knobs
