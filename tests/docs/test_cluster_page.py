"""The commands and files on the page about clusters say only what the programs understand."""

import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from convnextv2.arguments import parse
from convnextv2.verbs.options import VERBS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md").read_text()
NEWER = {"--shutdown-timeout"}  # than the oldest PyTorch; the page says so


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


JOB, TASK = (yaml.safe_load(text) for text in blocks("yaml"))
REPLICAS = JOB["spec"]["pytorchReplicaSpecs"]
POD = REPLICAS["Master"]["template"]["spec"]["containers"][0]
SCRIPTS = [*blocks("bash"), TASK["run"], shlex.join(POD["command"])]


def lines() -> list[list[str]]:
    """The words of every line of shell on the page that starts a program of ours."""
    whole = "\n".join(SCRIPTS).replace("\\\n", " ")
    found = [shlex.split(line) for line in whole.splitlines() if not line.startswith("#")]
    return [words for words in found if "convnextv2" in words]


def test_every_launcher_is_found() -> None:
    assert [words[0] for words in lines()] == [
        *("torchrun", "mpirun", "srun", "srun", "convnextv2", "torchrun", "convnextv2")
    ]


@pytest.mark.parametrize("words", lines(), ids=lambda words: words[0])
def test_the_options_of_a_command_exist_and_its_values_are_allowed(words: list[str]) -> None:
    verb, given = parse(words[words.index("convnextv2") + 1 :])
    if given.get("lr", "").startswith("$"):  # a value of an array
        given["lr"] = "1e-3"
    options: Any = VERBS[verb].read(given)
    options.recipe(options.config)


@pytest.mark.parametrize("words", [words for words in lines() if words[0] == "torchrun"])
def test_the_options_of_torchrun_exist(words: list[str]) -> None:
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    own = [word for word in takewhile("-m".__ne__, words) if word.startswith("--")]
    assert own and set(own) <= known | NEWER


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_read_by_the_shell(script: str) -> None:
    read = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert not read.returncode, read.stderr


def test_a_job_on_kubernetes_may_lose_each_of_its_pods_several_times() -> None:
    pods = sum(replica["replicas"] for replica in REPLICAS.values())
    assert JOB["spec"]["runPolicy"]["backoffLimit"] >= 10 * pods
    assert REPLICAS["Worker"]["template"] == REPLICAS["Master"]["template"]
    assert {replica["restartPolicy"] for replica in REPLICAS.values()} == {"OnFailure"}


def test_the_volumes_of_a_pod_are_those_that_it_mounts() -> None:
    spec = REPLICAS["Master"]["template"]["spec"]
    assert [one["name"] for one in spec["volumes"]] == [one["name"] for one in POD["volumeMounts"]]


@pytest.mark.parametrize(
    ("code", "restarts", "queued"),
    [(0, "", False), (2, "", False), (75, "", True), (137, "3", True), (75, "50", False)],
)
def test_a_job_of_slurm_is_queued_again_unless_it_is_done_or_wrong(
    code: int, restarts: str, queued: bool
) -> None:
    (script,) = (text for text in blocks("bash") if text.startswith("#!"))
    programs = f'scontrol() {{ echo "scontrol $@"; }}; srun() {{ return {code}; }}\n'
    environment = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "12", "PATH": "/usr/bin:/bin"}
    environment |= {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    run = subprocess.run(
        ["bash"], input=programs + script, text=True, capture_output=True, env=environment
    )
    assert run.returncode == code and not run.stderr
    assert ("scontrol requeue 7" in run.stdout) == queued
