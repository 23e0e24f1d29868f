"""Pre-train an encoder by FCMAE, without labels."""

from __future__ import annotations

from convnextv2.distributed import leave, say
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.training.masked import train_masked
from convnextv2.verbs.options import PretrainOptions
from convnextv2.verbs.report import report_run
from convnextv2.verbs.session import new_run


@takes(PretrainOptions)
def pretrain(options: PretrainOptions) -> Run:
    """Pre-train an encoder on images without labels, for `train(init=...)`.

    Returns:
        The run.
    """
    with new_run(options) as (recipe, run, place):
        before = run.last_checkpoint() if run.is_reported() else None
        train_masked(recipe, run, place)
        leave()  # the report may take longer than ranks wait for each other
        if place.is_main and before is not None and before == run.last_checkpoint():
            say(f"{run.path} is done ({recipe.epochs} epochs). Report: {run.report}")
        elif place.is_main:
            report_run(run, place)
            say(f"Report: {run.report}")
            say(
                f"Next: convnextv2 train --config small_data --data_dir DATA --init {run.path} --out RUN"
            )
    return run
