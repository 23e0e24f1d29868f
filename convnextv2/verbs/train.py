"""Train or fine-tune a classifier."""

from __future__ import annotations

from convnextv2.console import say
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.tasks.choice import build_task, report_training
from convnextv2.verbs.options import TrainOptions
from convnextv2.verbs.session import new_run, run_task


@takes(TrainOptions)
def train(options: TrainOptions) -> Run:
    """Train or fine-tune a classifier on labelled images, and write a run folder with a report.

    If the images of a table have several labels each, the model learns to give any number of them.

    Returns:
        The run.
    """
    with new_run(options) as start:
        task = build_task(start)
        if run_task(task, start):
            evaluation = report_training(task, start.run, start.place, start.weights)
            if evaluation is not None:
                say(evaluation.table())
            say(f"Report: {start.run.report}")
    return start.run
