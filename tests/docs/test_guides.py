"""The commands of guides, run as they stand there, without those that export, serve or download.

Networks and epochs are made small as for the tutorials.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, blocks, bundled_shoes, commands, run_command

TRAIN = "convnextv2 train --config small_data --data_dir shoes --out"
PRETRAIN = "convnextv2 pretrain --config fcmae_small_data --data_dir shoes --out"
BLOCKS = ("v1", "v2_without_grn", "v2")

GUIDES = {
    "audit": [],
    "distil": [],
    "embed": [f"{TRAIN} runs/shoes", f"{PRETRAIN} runs/pre"],
    "explain": [f"{TRAIN} runs/shoes"],
    "health": [f"{PRETRAIN} runs/pre-{block} --block {block}" for block in BLOCKS],
    "multi-label": [],
    "preprocessing": [],
    "programs": [f"{TRAIN} runs/shoes"],
    "unbalanced": [f"{TRAIN} runs/clothes"],
    "unknown": [f"{TRAIN} runs/clothes"],
    "validate": [f"{TRAIN} runs/clothes"],
}
"""The commands that come before those of a guide."""
LEFT_OUT = (" export ", " serve ", "/artifacts/", "convnext_atto.d2_in1k", "weights.pt")


def folder_of_guides(folder: Path) -> None:
    """Everything that the guides name: photographs, tables, and arrays of five channels."""
    bundled_shoes(folder, val=10)
    photos = sorted((folder / "shoes" / "val" / "boots").iterdir())
    for name in ("photos", "photographs", "more", "more_shoes", "folder"):
        (folder / name).mkdir()
        for photo in photos[:3]:
            shutil.copy(photo, folder / name / f"{name}-{photo.name}")
    shutil.copytree(folder / "shoes", folder / "other")
    shutil.copy(folder / "new.jpg", folder / "photo.jpg")
    for split in ("shoes", "other"):  # the guide on explanations calls its classes so
        for plural in (folder / split).glob("*/*"):
            plural.rename(plural.with_name(plural.name.removesuffix("s")))
    images = sorted((folder / "shoes").rglob("*.jpg"))
    labels = ("hat|coat", "coat", "", "hat")
    rows = [f"{path},{labels[number % 4]}" for number, path in enumerate(images)]
    (folder / "garments.csv").write_text("\n".join(["path,label", *rows]))
    shown = [path.relative_to(folder) for path in images if "val" in path.parts]
    rows = [f"{path},{path.parent.name}" for path in shown]
    (folder / "answers.csv").write_text("\n".join(["image,classes", *rows]))
    (folder / "fields").mkdir()
    values = np.random.default_rng(0).integers(0, 4000, (4, 20, 30, 5), dtype=np.uint16)
    for number, array in enumerate(values):
        np.save(folder / "fields" / f"{number}.npy", array)


@pytest.mark.parametrize("guide", GUIDES)
def test_the_commands_of_a_guide_run(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_guides(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / f"{guide}.md"
    written = [line for _, text in blocks(page, "bash", "sh") for line in commands(text)]
    ours = [
        line.replace("OWNER/NAME", "runs/tiny").partition(" | ")[0]
        for line in map(str.strip, written)
        if line.startswith("convnextv2 ") and not any(part in line for part in LEFT_OUT)
    ]
    assert ours
    for command in [*GUIDES[guide], *ours]:
        small = " --batch_size 2" if "--show_images" in shlex.split(command) else ""
        run_command(page, command + small, 0)
