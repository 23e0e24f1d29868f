"""Train or fine-tune a classifier."""

from __future__ import annotations

from convnextv2.distributed import leave, say
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.training.supervised import train_supervised
from convnextv2.verbs.options import TrainOptions
from convnextv2.verbs.report import report_run
from convnextv2.verbs.session import new_run


@takes(TrainOptions)
def train(options: TrainOptions) -> Run:
    """Train or fine-tune a classifier on labelled images, and write its run folder with a report.

    Returns:
        The run.
    """
    with new_run(options) as (recipe, run, place):
        before = run.last_checkpoint() if run.is_reported() else None
        train_supervised(recipe, run, place)
        leave()  # the report may take longer than ranks wait for each other
        if place.is_main and before is not None and before == run.last_checkpoint():
            say(f"{run.path} is done ({recipe.epochs} epochs). Report: {run.report}")
        elif place.is_main:
            evaluation = report_run(run, place)
            if evaluation is not None:
                say(evaluation.table())
            say(f"Report: {run.report}")
    return run
