"""Pre-train an encoder by FCMAE, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnextv2.distributed import leave, say
from convnextv2.run import Run
from convnextv2.training.masked import train_masked
from convnextv2.verbs.report import report_run
from convnextv2.verbs.session import new_run


def pretrain(config: str | Path | None = None, **knobs: Any) -> Run:
    """Pre-train an encoder on images without labels (any nested folder), for `train(init=...)`. Returns the run."""
    with new_run("pretrain", config, knobs) as (recipe, run, place):
        train_masked(recipe, run, place)
        leave()  # the report may take longer than ranks wait for each other
        if place.is_main:
            report_run(run, place)
            say(f"Report: {run.report}")
            say(f"Next: convnextv2 train --config small_data --data_dir DATA --init {run.path} --out RUN")
    return run
