"""Measure a classifier on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnextv2.deploy.artifact import is_artifact, open_artifact
from convnextv2.distributed import joined, say
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.metrics import Evaluation
from convnextv2.recipe.knobs import Recipe, group_of
from convnextv2.recipe.read import read_recipe
from convnextv2.run import Run, find_weights, run_of
from convnextv2.verbs.report import evaluate_weights, write_evaluation_report
from convnextv2.weights.load import open_weights

_IN_THE_ARTIFACT = {
    *("image_size", "in_channels", "value_range", "eval_preset", "interpolation", "crop_pct", "mean", "std", "antialias", "model")
}


def validate(run: str | Path | None = None, *, config: str | Path | None = None, **knobs: Any) -> Evaluation:
    """Evaluate a run, or with `config` and `ckpt_path` (or `init`) the weights of a checkpoint; print a table, write a report.

    run: a run folder, checkpoint, weights file or artifact. It brings its recipe (data, preprocessing; an artifact its own
    preprocessing, and the data of the run it lies in); knobs, for example data_dir, replace parts of it. Every image is counted
    exactly once, on any number of ranks."""
    if run is not None and is_artifact(run):
        weights = open_artifact(run).path
        owner = run_of(weights)
        if config is None and owner is not None:
            knobs = _data_knobs(owner) | knobs
        if wrong := sorted(knobs.keys() & _IN_THE_ARTIFACT):
            raise RecipeError(
                f"{wrong[0]} = {knobs[wrong[0]]}: an artifact prepares its images in its own way. Leave {wrong[0]} out."
            )
    elif run is not None:
        weights = find_weights(run)
        owner = run_of(weights)
        if config is None and owner is not None:
            config = owner.path / "recipe.yaml"
        if config is None:
            knobs = _preprocessing_knobs(weights) | knobs
    recipe, notes = read_recipe(knobs, config=config)
    if run is None:
        if not recipe.init:
            raise CheckpointError(
                "ckpt_path is missing: there are no weights to validate. Give --ckpt_path CHECKPOINT, or a run folder."
            )
        weights = find_weights(recipe.init)
    with joined(recipe.device, recipe.distribute, timeout_s=recipe.rank_timeout_s) as (place, more):
        for note in notes + more:
            say(note)
        measured = evaluate_weights(weights, recipe, place)
        for note in measured.notes():
            say(note)
        say(f"Weights: {weights}")
        say(measured.evaluation.table())
        if recipe.mindcv_files:
            say(_mindcv_line(measured.evaluation))
        if place.is_main:
            say(f"Report: {write_evaluation_report(weights, measured, recipe)}")
    return measured.evaluation


def _mindcv_line(evaluation: Evaluation) -> str:
    """What MindCV's validate.py prints last, which scripts may read."""
    figures = {"Top_1_Accuracy": evaluation.top1, "Top_5_Accuracy": evaluation.top5, "loss": evaluation.loss}
    return str({name: value for name, value in figures.items() if value is not None})


def _data_knobs(owner: Run) -> dict[str, Any]:
    """Which images a run was validated on."""
    recipe = owner.recipe
    return {
        name: getattr(recipe, name)
        for name in group_of("data")
        # What a run's recipe.yaml states as the default was not asked for by the user.
        if getattr(recipe, name) != Recipe.model_fields[name].default and name not in _IN_THE_ARTIFACT
    }


def _preprocessing_knobs(weights: Path) -> dict[str, Any]:
    """How a weights file on its own says its images are prepared."""
    knobs = dict(open_weights(weights).description.preprocessing)
    knobs["in_channels"] = knobs.pop("channels", 3)
    return knobs
