"""Train or fine-tune a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnextv2.distributed import leave, say
from convnextv2.run import Run
from convnextv2.training.supervised import train_supervised
from convnextv2.verbs.report import report_run
from convnextv2.verbs.session import new_run


def train(config: str | Path | None = None, **knobs: Any) -> Run:
    """Train a classifier on labelled images, from random weights or from `init`, and write its run folder with a report.

    config: a YAML file or the name of a shipped recipe; knobs: as on the command line. Returns the run."""
    with new_run("train", config, knobs) as (recipe, run, place):
        train_supervised(recipe, run, place)
        leave()  # the report may take longer than ranks wait for each other
        if place.is_main:
            evaluation = report_run(run, place)
            if evaluation is not None:
                say(evaluation.table())
            say(f"Report: {run.report}")
    return run
