"""The commands of pages of the documentation, made small and run in this process."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from convnextv2.cli import main
from convnextv2.data.sources import find_sources
from convnextv2.evaluation.gallery import to_picture
from convnextv2.recipe.read import read_recipe

ROOT = Path(__file__).parents[2]

SHORT = {"epochs": 1, "warmup_epochs": 0, "workers": 0, "device": "cpu"}
SMALL = {"model": "custom", "depths": "1,1,1,1", "dims": "8,16,24,32", "image_size": 64}
FEW = {"batch_size": 2}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The blocks of a page, each as its language and its text; lines that go on are joined."""
    found = re.findall(
        r"^ *```(\w+)\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return [(kind, text.replace("\\\n", " ")) for kind, text in found if kind in languages]


def commands(text: str) -> list[str]:
    """The commands of a block."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def bundled_shoes(folder: Path, *, val: int = 2) -> None:
    """Photographs: shoes/SPLIT/CLASS/*.jpg, the same under imagenet/, and new.jpg."""
    _, source = find_sources(read_recipe({}, config="demo")[0], labelled=True)
    assert source is not None and source.targets is not None
    wanted = {"Ankle boot": "boots", "Sandal": "sandals"}
    counts = dict.fromkeys(wanted, 0)
    for index, target in enumerate(source.targets.tolist()):
        name = source.class_names[target]
        if name in counts and counts[name] < 6 + val:
            split = "train" if counts[name] < 6 else "val"
            path = folder / "shoes" / split / wanted[name] / f"{counts[name]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_picture(source.pixels(index, 3)).resize((80, 90)).save(path)
            counts[name] += 1
    assert set(counts.values()) == {6 + val}
    shutil.copytree(folder / "shoes", folder / "imagenet")
    shutil.copy(path, folder / "new.jpg")


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
    elif verb in ("validate", "predict", "embed", "probe", "explain", "compare"):
        chosen = {"workers": 0}
    if verb == "plan":
        chosen["probe_seconds"] = 1
    if page.stem == "from-mindcv" and verb in ("train", "validate"):
        chosen = {"model": "convnextv2_atto", "image_size": 64, "workers": 0, **FEW}
        chosen |= SHORT if verb == "train" else {}
    if "--server" in words:
        chosen = {}
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
