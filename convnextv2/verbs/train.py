"""Train or fine-tune a model for any task but pre-training."""

from __future__ import annotations

from pathlib import Path

from convnextv2.console import say
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.tasks.choice import build_task
from convnextv2.tasks.report import report_training
from convnextv2.verbs.options.learning import TrainOptions
from convnextv2.verbs.session import new_run, preview, run_task, show_images


@takes(TrainOptions)
def train(options: TrainOptions) -> Run:
    """Train or fine-tune a classifier, segmentor or detector, and write a run folder with a report.

    `task` says what is learned. If images have several labels each, a classifier learns to predict
    any number of labels.

    With `show_images`, the first training images are written to a picture, and nothing is trained.

    Returns:
        The run. With `show_images`, it has no folder.
    """
    if options.show_images:
        with preview(options) as start:
            show_images(build_task(start), start, Path(options.show_images))
        return start.run
    with new_run(options) as start:
        task = build_task(start)
        if run_task(task, start):
            evaluation = report_training(task, start.run, start.place, start.weights)
            if evaluation is not None:
                say(evaluation.table())
            say(f"Report: {start.run.report}")
    return start.run
