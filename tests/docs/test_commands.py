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
import signal
import socket
import threading
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import (
    FEW,
    ROOT,
    SHORT,
    SMALL,
    blocks,
    bundled_shoes,
    commands,
    options_at_the_end,
    run_command,
)
from maps import draw_maps

import convnextv2
from convnextv2.cli import main
from convnextv2.data import named_sets

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *TUTORIALS, ROOT / "docs" / "how-to" / "segmentation.md"]


def few_bundled_images(folder: Path) -> None:
    """A twentieth of the bundled images in each split, as a file of the same form."""
    folder.mkdir()
    with np.load(named_sets.BUNDLED / "fashion_mnist.npz") as content:
        few = {name: values[::20] for name, values in content.items()}
    np.savez(folder / "fashion_mnist.npz", **few)


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
