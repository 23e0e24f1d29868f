"""Classifiers from scratch beside those of timm and LightlyTrain, in the same time on a CPU.

    python benchmarks/from_scratch_peers.py DATA OUT --minutes 20 [--jobs 2] [--sets clothing cells]
                                            [--arms ours timm] [--tries 3] [--seeds 2]
                                            [--image_size 64] [--lightly FOLDER]

DATA has the folders clothing, bccd and clothing_parsing, from which benchmarks/unknown.py makes
three sets of images with the splits train, val and test. All arms train ConvNeXt V2 atto:

ours          the recipe small_data
fcmae         FCMAE by the recipe fcmae_small_data, then small_data
timm          timm's network in a loop as timm's train.py has it: crops from 0.08 on, flips, colour
              jitter 0.4, label smoothing 0.1
timm-strong   the same with RandAugment (rand-m9-mstd0.5-inc1), erasing 0.25, mixup 0.8, CutMix 1
              and drop path 0.1, with which timm trains networks like this one
lightly       LightlyTrain's pre-training by SimCLR, then the loop of the arm timm

Every arm gets the same minutes, of which a pre-training takes half: CPU time of one process with
one thread, counted from the first step. All have AdamW with a decay of 0.05, batches of 64 images
of the same size, an average of the weights, and a cosine that ends with the time. Each tries the
same learning rates, in a third of the time, on nine tenths of the training images; the other tenth
chooses (pre-trainings see its images, too, without labels). Then there is a run on all training
images for each seed, whose averaged weights are measured on test, once. LightlyTrain has no limit
by CPU time: its epochs follow from the pace of two short runs of it, which are not counted.

OUT gets the images and the runs, and for each set figures.json and table.md. Finished runs are
kept, so the program may be stopped and started again; a run that was halted starts over. The arms
timm need timm. The arm lightly runs if --lightly names the folder that LightlyTrain (AGPL) was
installed into. It is called by its documented functions, without its events:

    pip install --target FOLDER lightly-train
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from equal_time import (
    RATES,
    Jobs,
    compare,
    comparison_parser,
    table,
    write_figures,
    write_result,
)
from from_scratch_arms import images_of, pretrain_lightly, pretrain_own, train_own, train_timm
from studies import hold_out_a_tenth, link_image
from unknown import make_sets

ARMS = {
    "ours": "convnextv2, small_data",
    "fcmae": "convnextv2, FCMAE first",
    "timm": "timm, train.py's augmentation",
    "timm-strong": "timm, RandAugment, mixup, CutMix",
    "lightly": "LightlyTrain's SimCLR first, then timm",
}
PRETRAINED = {"fcmae": 0.5, "lightly": 0.5}
"""The arms that pre-train, and the share of their time that this takes."""
TUNING = 1 / 3
"""The share of a run's time that a run with another learning rate takes."""
COLUMNS = {"top1": "top-1", "balanced": "balanced accuracy"}


def work(folder: Path) -> None:
    """Do the job that a folder describes, in this process."""
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    if job["kind"] == "pretrain":
        found = (pretrain_lightly if job["arm"] == "lightly" else pretrain_own)(folder, job)
    else:
        found = (train_own if job["arm"] in ("ours", "fcmae") else train_timm)(folder, job)
        if found["spent"]["diverged"]:
            found["scores"] = dict.fromkeys(COLUMNS, 0.0)
    write_result(folder, found)


class Study:
    """The arms of all sets.

    Args:
        arguments: The arguments of the program.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out = arguments, arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        make_sets(arguments.data, self.out)
        self.data: dict[str, dict[bool, Path]] = {}
        for name in arguments.sets:
            full = self.out / name
            if arguments.images:
                full = first_images(full, self.out / f"{name}-first", arguments.images)
            tuning = hold_out_a_tenth(full, self.out / f"{full.name}-tuning")
            self.data[name] = {True: full, False: tuning}

    def score(self, _name: str) -> str:
        """Return the figure that chooses the learning rate."""
        return "top1"

    def _folder(self, name: str, *parts: object) -> Path:
        return Path(self.out, f"runs-{name}", "-".join(map(str, parts)))

    def _job(self, name: str, arm: str, seed: int, *, final: bool) -> dict[str, Any]:
        data = self.data[name][final]
        return {
            "arm": arm,
            "seed": seed,
            "size": self.arguments.image_size,
            "data": str(data),
            "images": len(images_of(data, "train")),
        }

    def pretraining(self, name: str, arm: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """Return folder and job of an arm's pre-training; None without one."""
        if arm not in PRETRAINED:
            return None
        return self._folder(name, "pre", arm, seed), {
            "kind": "pretrain",
            **self._job(name, arm, seed, final=True),
            "seconds": 60 * self.arguments.minutes * PRETRAINED[arm],
            **({"lightly": self.arguments.lightly} if arm == "lightly" else {}),
        }

    def training(
        self, name: str, arm: str, seed: int, rate: float, *, final: bool
    ) -> tuple[Path, dict[str, Any]]:
        """Return folder and job of a training: a final one, or one that tries a rate."""
        before = self._folder(name, "pre", arm, seed)
        init = {
            "fcmae": str(before / "run"),
            "lightly": str(before / "run" / "exported_models" / "exported_last.pt"),
        }.get(arm, "")
        left = 1 - PRETRAINED.get(arm, 0.0)
        which = f"seed-{seed}" if final else f"lr-{rate:g}"
        return self._folder(name, arm, which), {
            "kind": "train",
            **self._job(name, arm, seed, final=final),
            "split": "test" if final else "val",
            "seconds": 60 * self.arguments.minutes * left * (1 if final else TUNING),
            "lr": rate,
            "init": init,
        }


def first_images(data: Path, out: Path, most: int) -> Path:
    """Link the first images of each class and split."""
    for folder in sorted(data.glob("*/*")):
        for path in sorted(folder.iterdir())[:most]:
            link_image(path, out / folder.relative_to(data) / path.name)
    return out


def main() -> None:
    """Run what is asked for, and write the figures."""
    parser = comparison_parser(__doc__, minutes=20)
    sets = ("clothing", "cells", "garments")
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets)
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="[all that can be run]")
    parser.add_argument("--image_size", type=int, default=64, help="in px [64]")
    parser.add_argument("--lightly", type=Path, help="folder with LightlyTrain")
    parser.add_argument("--images", type=int, help="images of a class, to try the program")
    arguments = parser.parse_args()
    if arguments.lightly:
        arguments.lightly = str(arguments.lightly.resolve())
    if not arguments.arms:
        arguments.arms = [arm for arm in ARMS if arm != "lightly" or arguments.lightly]
    if "lightly" in arguments.arms and not arguments.lightly:
        parser.error("--lightly: the arm lightly needs the folder that LightlyTrain is in.")
    if arguments.minutes <= 0:
        parser.error(f"--minutes {arguments.minutes}: expected a number above 0.")
    for name in ("clothing", "bccd", "clothing_parsing"):
        if not (arguments.data / name).is_dir():
            parser.error(f"{arguments.data}: has no folder {name}, from which sets are made.")
    arguments.out = arguments.out.resolve()
    figures = compare(
        Study(arguments),
        Jobs(Path(__file__).resolve(), arguments.jobs),
        arms=dict.fromkeys(arguments.sets, arguments.arms),
        rates=RATES[: arguments.tries],
        seeds=arguments.seeds,
    )
    for name, arms in figures.items():
        text = table(arms, ARMS, COLUMNS)
        write_figures(arguments.out / f"runs-{name}", arms, text)
        print(f"### {name}\n\n{text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        work(Path(sys.argv[2]))
    else:
        main()
