"""The commands of the page on detection, run as they stand there on a few drawn pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from runs import SMALL
from shapes import coco_json, draw_shapes, write_coco

from convnextv2.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "detection.md"
NETWORK = SMALL[: SMALL.index("--image_size")]
SHORT = (
    "--image_size 64 --epochs 1 --warmup_epochs 0 --workers 0 --device cpu --batch_size 2".split()
)
SMALLER = {
    "train": [
        *NETWORK,
        *SHORT,
        *"--fpn_channels 16 --box_dim 32 --rois 16 --proposals 30 --tensorboard False".split(),
    ],
    "pretrain": [
        *NETWORK,
        *SHORT,
        *"--decoder_dim 8 --tensorboard False".split(),
    ],
    "validate": ["--workers", "0"],
    "predict": ["--workers", "0"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with cells/ (three splits) and new.jpg."""
    root = write_coco(tmp_path / "cells", train=4, val=2)
    drawn = [draw_shapes(root / "images" / "test0.png", 7)]
    (root / "instances_test.json").write_text(json.dumps(coco_json(drawn)))
    draw_shapes(tmp_path / "new.png", 8)
    shutil.move(tmp_path / "new.png", tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(folder: Path) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines() if line]
    assert len(commands) >= 6
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert program == "convnextv2"
        assert main([verb, *words, *SMALLER[verb]]) == 0, command
    assert {path.name for path in (folder / "found").iterdir()} >= {"new.png", "objects.json"}


def test_every_setting_that_the_table_names_exists() -> None:
    from convnextv2.recipe.knobs import Recipe

    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = set(re.findall(r"\(`(\w+)`\)", "\n".join(rows)))
    assert len(named) >= 6 and named <= Recipe.model_fields.keys()
