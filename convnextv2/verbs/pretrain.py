"""Pre-train an encoder with FCMAE, without labels."""

from __future__ import annotations

from pathlib import Path

from convnextv2.console import say
from convnextv2.find import find_weights
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.tasks.masked.examination import build_examination
from convnextv2.tasks.masked.report import report_pretraining
from convnextv2.tasks.masked.task import MaskedPretraining
from convnextv2.text import typed
from convnextv2.verbs.options.learning import PretrainOptions
from convnextv2.verbs.session import new_run, preview, run_task, show_images
from convnextv2.weights.opened import open_weights


@takes(PretrainOptions)
def pretrain(options: PretrainOptions) -> Run:
    """Pre-train an encoder on images without labels, to start `train(init=...)` from.

    With `show_images`, the first training images are written to a picture, each beside its visible
    tiles, and nothing is trained.

    Returns:
        The run. With `show_images`, it has no folder.
    """
    if options.show_images:
        with preview(options) as start:
            show_images(MaskedPretraining(start), start, Path(options.show_images))
        return start.run
    with new_run(options) as start:
        run = start.run
        task = MaskedPretraining(start)
        if run_task(task, start, build_examination(task, start)):
            report_pretraining(run, open_weights(find_weights(run.path)))
            say(f"Report: {run.report}")
            say(
                "Next: convnextv2 train --config finetune --data_dir DATA "
                f"--init {typed(run.path)} --out RUN"
            )
    return start.run
