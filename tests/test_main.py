"""The effect of signals on a process before and after its command."""

import subprocess
import sys
from pathlib import Path

import pytest
from processes import Program

CODE = """
import os, signal, sys
import convnextv2.cli

def command(argv):
    {during}
    return {code}

convnextv2.cli.main = command
from convnextv2.__main__ import main

code = main(["{verb}"])
{after}
sys.exit(code)
"""
KILL = "os.kill(os.getpid(), signal.{name})"


def run(**parts: object) -> tuple[int, str]:
    parts = {"during": "pass", "after": "pass", "code": 0, "verb": "train"} | parts
    process = Program("-c", CODE.format(**parts))
    code = process.wait(timeout=60)
    _, errors = process.communicate()
    process.close()
    return code, errors


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_a_run_that_is_stopped_before_it_began_may_be_started_again(verb: str) -> None:
    code, errors = run(during=KILL.format(name="SIGTERM"), verb=verb)
    assert code == 75 and errors == "convnextv2: stopped as asked before the run began\n"


def test_another_verb_ends_at_a_signal_as_any_program_does() -> None:
    code, errors = run(during=KILL.format(name="SIGTERM"), verb="predict")
    assert code == -15 and not errors


@pytest.mark.parametrize("code", [0, 2, 75])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_after_the_command_does_not_change_the_exit_code(code: int, name: str) -> None:
    assert run(after=KILL.format(name=name), code=code) == (code, "")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_runs_without_the_standard_streams(closed: str, tmp_path: Path) -> None:
    code = (
        "import os, sys; from convnextv2.__main__ import main; code = main(['recipes']); "
        "print('ours'); sys.stdout.flush(); file = open(sys.argv[1], 'w'); "
        "file.write(f'{code} {file.fileno() > 2}')"
    )
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, code, tmp_path / "out"]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert (tmp_path / "out").read_text() == "0 True"
