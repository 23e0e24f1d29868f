"""The commands that a report proposes can be typed as they stand."""

import shlex
from pathlib import Path

import pytest

from convnextv2 import arguments
from convnextv2.tasks.supervised.next_steps import next_steps


@pytest.mark.parametrize("run", ["runs/shoes", "my runs/shoes & co", "it's", "-run"])
def test_every_command_reads_the_run_that_it_names(run: str) -> None:
    for command, _ in next_steps(run, 1e-3):
        program, *words = shlex.split(command)
        _, options = arguments.parse(words)
        assert program == "convnextv2"
        paths = {Path(value) for value in options.values() if isinstance(value, str)}
        assert Path(run) in paths or Path(run, "recipe.yaml") in paths
