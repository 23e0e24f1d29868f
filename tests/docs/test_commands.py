"""The commands and the Python of the README and of the tutorials, run as they stand there.

Each page has a folder of its own with photographs of shoes, made of the bundled images. Networks
and epochs are made small by options at the end of a command; nothing else is changed.
"""

import contextlib
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maps import draw_maps

import convnextv2
from convnextv2.cli import main
from convnextv2.data import named_sets
from convnextv2.data.sources import find_sources
from convnextv2.evaluation.gallery import to_picture
from convnextv2.recipe.read import read_recipe

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *TUTORIALS, ROOT / "docs" / "how-to" / "segmentation.md"]

SHORT = {"epochs": 1, "warmup_epochs": 0, "workers": 0, "device": "cpu"}
SMALL = {"model": "custom", "depths": "1,1,1,1", "dims": "8,16,24,32", "image_size": 64}
FEW = {"batch_size": 2}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The blocks of a page, each as its language and its text; lines that go on are joined."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [(kind, text.replace("\\\n", " ")) for kind, text in found if kind in languages]


def commands(text: str) -> list[str]:
    """The commands of a block."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def bundled_shoes(folder: Path) -> None:
    """Photographs: shoes/SPLIT/CLASS/*.jpg, the same under imagenet/, and new.jpg."""
    _, source = find_sources(read_recipe({}, config="demo")[0], labelled=True)
    assert source is not None and source.targets is not None
    wanted = {"Ankle boot": "boots", "Sandal": "sandals"}
    counts = dict.fromkeys(wanted, 0)
    for index, target in enumerate(source.targets.tolist()):
        name = source.class_names[target]
        if name in counts and counts[name] < 8:
            split = "train" if counts[name] < 6 else "val"
            path = folder / "shoes" / split / wanted[name] / f"{counts[name]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_picture(source.pixels(index, 3)).resize((80, 90)).save(path)
            counts[name] += 1
    assert set(counts.values()) == {8}
    shutil.copytree(folder / "shoes", folder / "imagenet")
    shutil.copy(path, folder / "new.jpg")


def few_bundled_images(folder: Path) -> None:
    """A twentieth of the bundled images in each split, as a file of the same form."""
    folder.mkdir()
    with np.load(named_sets.BUNDLED / "fashion_mnist.npz") as content:
        few = {name: values[::20] for name, values in content.items()}
    np.savez(folder / "fashion_mnist.npz", **few)


def options_at_the_end(page: Path, verb: str, words: list[str]) -> list[str]:
    """Return the options that make a command quick."""
    chosen: dict[str, Any] = {}
    if "demo" in words[1:]:  # the recipe, which has a small network of its own
        chosen = SHORT.copy()
    elif verb in ("pretrain", "train", "plan"):
        chosen = {**SHORT, **SMALL, **FEW}
    elif verb == "demo":
        chosen = {"quick": True}
    elif verb == "export":
        chosen = {"seconds": 0, "workers": 0}
    elif verb == "validate":
        chosen = {"workers": 0}
    if verb == "plan":
        chosen["probe_seconds"] = 1
    if page.stem == "from-mindcv" and verb in ("train", "validate"):
        chosen = {"model": "convnextv2_atto", "image_size": 64, "workers": 0, **FEW}
        chosen |= SHORT if verb == "train" else {}
    if "--resume" in words:
        chosen["epochs"] = 2
    return [
        word
        for name, value in chosen.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def read_command(page: Path, command: str, port: int) -> tuple[str, list[str]]:
    """The program of a command and its words, `python train.py` as the verb `train`."""
    if page.stem == "from-mindcv":  # a smaller size, whose files are called by its name
        command = re.sub(r"convnextv2_tiny(?!_ascend)", "convnextv2_atto", command)
    program, *words = shlex.split(command.replace("8000", str(port)), comments=True)
    if program == "python" and words[0] == "-m":
        return words[1], words[2:]
    if program == "python":
        assert (ROOT / words[0]).is_file()
        return "convnextv2", [Path(words[0]).stem, *words[1:]]
    return program, words


def run_command(page: Path, command: str, port: int) -> None:
    """Run one command of a page, in this process if it is ours."""
    program, words = read_command(page, command, port)
    if program == "curl":
        if shutil.which("curl"):
            subprocess.run(["curl", "--fail", "--silent", *words], check=True)
        return
    assert program == "convnextv2", command
    assert main([*words, *options_at_the_end(page, words[0], words)]) == 0, command


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def use_and_stop(page: Path, port: int, clients: list[str], answers: list[str]) -> None:
    """Once the server of this process is ready: a prediction, the page's clients, and its end."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
            break
        time.sleep(0.1)
    try:
        address = f"http://127.0.0.1:{port}/v1/models/shoes/predict"
        with urllib.request.urlopen(address, Path("new.jpg").read_bytes()) as answer:
            answers.append(json.load(answer)["model"])
        for client in clients:
            run_command(page, client, port)
            answers.append(client)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def serve(page: Path, command: str, clients: list[str]) -> None:
    """Run a server of a page until its clients have been answered."""
    answers: list[str] = []
    port = free_port()
    threading.Thread(target=use_and_stop, args=(page, port, clients, answers), daemon=True).start()
    run_command(page, f"{command} --port {port} --drain_s 0", port)
    assert answers == ["shoes", *clients]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with photographs, in which Python's calls are as small as the commands."""
    bundled_shoes(tmp_path)
    draw_maps(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    few_bundled_images(tmp_path / "bundled")
    monkeypatch.setattr(named_sets, "BUNDLED", tmp_path / "bundled")
    quick = {"epochs": 1, "warmup_epochs": 0, "workers": 0}
    monkeypatch.setattr(importlib.import_module("convnextv2.verbs.demo"), "QUICK", quick)
    train = functools.partial(convnextv2.train)
    small = {**SHORT, **SMALL, **FEW}
    monkeypatch.setattr(
        convnextv2, "train", lambda **given: train(**(given | small)), raising=False
    )
    yield tmp_path


@pytest.mark.filterwarnings("ignore")  # of exporters
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_and_the_python_of_a_page_run(page: Path, folder: Path) -> None:
    if page.stem == "deploying":  # it begins with the run that the tutorial before it leaves
        options = "--config small_data --data_dir shoes --out runs/shoes".split()
        assert main(["train", *options, *options_at_the_end(page, "train", options)]) == 0
    steps = [
        (kind, step)
        for kind, text in blocks(page, "bash", "python")
        for step in (commands(text) if kind == "bash" else [text])
    ]
    assert len(steps) >= 5
    while steps:
        kind, step = steps.pop(0)
        if kind == "python":
            exec(compile(step, str(page), "exec"), {})
        elif " serve " in step:
            clients = [other for _, other in steps if _ == "bash"]
            steps = [other for other in steps if other[0] != "bash"]
            serve(page, step, clients)
        else:
            run_command(page, step, 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_that_install_name_targets_and_extras_that_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in [line for _, text in blocks(page, "sh") for line in commands(text)]:
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            assert set(words) <= set(targets), line
        else:
            assert [program, *words[:-1]] == ["python", "-m", "pip", "install"], line
            extras = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])
            assert extras is not None, line
            assert set(extras[1].split(",")) <= project["optional-dependencies"].keys(), line
