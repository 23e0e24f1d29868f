"""Test whether the order of the paper's results holds on small sets of photographs.

    python benchmarks/paper_claims.py DATA OUT [--sets clothing cells] [--parts order masks]
                                      [--seeds 3] [--jobs 2] [--epochs_share 0.5]

DATA has the folders clothing, bccd and clothing_parsing, from which benchmarks/unknown.py makes
three sets of images with the splits train, val and test. Two parts:

order   V1's blocks and V2's, trained with labels alone; FCMAE without GRN and with it, then
        fine-tuned. With all labels, and with those of a tenth of the training images.
masks   FCMAE with 2 of 4 tiles masked, and with 3 of 4; and with the whole image computed, its
        pixels masked once after the stem; then fine-tuned. An image of 64 px has four tiles, so
        mask_ratio 0.6 and 0.8 are the same.

Each arm has the best of three learning rates, from short runs on nine tenths of its training
images, measured on the other tenth. Seeds include the pre-training's. The averaged weights after
the last epoch are measured on test, once. OUT gets the images, the runs, which test images each run
got right (answers.npz), and the figures of each part. Finished runs are kept and halted ones
resumed, so another share of the epochs needs another OUT.
"""

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from studies import (
    argument_parser,
    final_top1,
    hold_out_a_tenth,
    keep_one_of,
    plain,
    right_images,
    run,
)
from torch import Tensor
from unknown import make_sets

from convnextv2 import cli
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.tiles import Tiles
from convnextv2.run import Run

SETS = ("clothing", "cells", "garments")
IMAGE_SIZE = 64
PRETRAINING_EPOCHS, EPOCHS, SHORT_EPOCHS = 60, 30, 10
LABELS = {"all": (1, EPOCHS, 64), "a tenth": (10, 100, 16)}
"""One of how many training images has a label, the epochs over those that have, and the batch."""
RATES = ("1e-3", "2e-3", "4e-3")


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        name: Its name in the tables.
        block: The form of the blocks.
        mask_ratio: That of FCMAE before the training; None without FCMAE.
        once: Whether FCMAE computes whole images whose pixels are masked once after the stem.
    """

    name: str
    block: str = "v2"
    mask_ratio: float | None = None
    once: bool = False

    @property
    def folder(self) -> str:
        """Its name in paths."""
        return plain(self.name)


GRN = Arm("FCMAE", mask_ratio=0.6)
PARTS = {
    "order": (
        Arm("V1 block", block="v1"),
        Arm("V2 block"),
        Arm("FCMAE without GRN", block="v2_without_grn", mask_ratio=0.6),
        GRN,
    ),
    "masks": (
        Arm("mask ratio 0.4", mask_ratio=0.4),
        GRN,
        Arm("masked once", mask_ratio=0.6, once=True),
    ),
}
COMMON = ("--workers", "0", "--image_size", str(IMAGE_SIZE))


def batch_of(size: int) -> tuple[str, ...]:
    """Return the settings of a batch whose learning rate is not scaled."""
    return ("--batch_size", str(size), "--lr_batch_size", str(size))


def masking_once() -> AbstractContextManager[object]:
    """Let FCMAE compute whole images: the stem's output is masked, and nothing after it.

    Returns:
        A context in which every ConvNeXtV2 does so.
    """
    encode = ConvNeXtV2.encode

    def encode_whole(self: ConvNeXtV2, images: Tensor, visible: Tiles | None = None) -> Tensor:
        if visible is None:
            return encode(self, images)
        tile = self.total_stride // self.arguments["stem_stride"]

        def masked(_module: object, _inputs: object, output: Tensor) -> Tensor:
            canvas = visible.canvas(tile)
            return canvas.paint(canvas.pick(output), onto=output.new_zeros(output.shape[-1]))

        hook = self.downsample_layers[0].register_forward_hook(masked)
        try:
            whole = encode(self, images)
        finally:
            hook.remove()
        return visible.canvas(1).pick(whole)

    return mock.patch.object(ConvNeXtV2, "encode", encode_whole)


def pretrain(out: Path, data: Path, arm: Arm, seed: int, epochs: int) -> None:
    """Pre-train once for each seed, unless that is done."""
    settings = (
        *("--config", "fcmae_small_data", "--data_dir", str(data), *COMMON),
        *batch_of(64),
        *("--epochs", str(epochs), "--seed", str(seed), "--block", arm.block),
        *("--mask_ratio", str(arm.mask_ratio), "--health_every_epochs", str(epochs)),
    )
    if not arm.once:
        run(out, "pretrain", *settings)
    elif not (out / "report.html").exists():
        # In a process of its own, since the method is replaced there.
        resume = ("--resume",) if (out / "checkpoints").exists() else settings
        with open(out.with_suffix(".log"), "a") as log:
            command = [sys.executable, __file__, "masked-once", *resume, "--out", str(out)]
            subprocess.run(command, check=True, stdout=log, stderr=log)


def diversity(folder: Path) -> float:
    """Return the mean feature diversity of the layers at the end of a pre-training."""
    records = [each for each in Run(folder).metrics() if each["kind"] == "health"]
    return float(records[-1]["mean_diversity"])


def interval(difference: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Bootstrap the mean of (seeds, images), drawing seeds and images together.

    Returns:
        The bounds of the 95 % interval.
    """
    rng = np.random.default_rng(0)
    seeds, images = difference.shape
    means = [
        difference[rng.integers(0, seeds, seeds)][:, rng.integers(0, images, images)].mean()
        for _ in range(draws)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


class Study:
    """The runs of a set.

    Args:
        root: The folder of the set's runs.
        data: The set's images, with train/, val/ and test/.
        arms: What is compared.
        seeds: How many seeds each arm has.
        pool: What runs commands side by side.
        epochs_share: A factor on the epochs of all runs.
    """

    def __init__(
        self,
        root: Path,
        data: Path,
        arms: tuple[Arm, ...],
        seeds: int,
        pool: ThreadPoolExecutor,
        epochs_share: float = 1.0,
    ) -> None:
        self.root, self.data, self.arms, self.pool = root, data, arms, pool
        self.epochs_share = epochs_share
        self.seeds = range(seeds)
        self.parts = {
            labels: keep_one_of(data, root / f"labels-{plain(labels)}", every)
            for labels, (every, *_) in LABELS.items()
        }

    def epochs(self, full: float) -> int:
        """Return how many epochs take the place of a full study's."""
        return max(1, round(self.epochs_share * full))

    def start(self, arm: Arm, seed: int) -> tuple[str, ...]:
        """Return the settings that name what an arm starts from."""
        block = ("--block", arm.block)
        if arm.mask_ratio is None:
            return block
        return (*block, "--init", str(self.pretraining(arm, seed)))

    def pretraining(self, arm: Arm, seed: int) -> Path:
        """Return the folder of an arm's pre-training."""
        return self.root / f"pre-{arm.folder}-{seed}"

    def fine_tuning(self, arm: Arm, labels: str, seed: int) -> Path:
        """Return the folder of an arm's training."""
        return self.root / f"{arm.folder}-{plain(labels)}-{seed}"

    def rates(self, labels: str) -> dict[Arm, str]:
        """Choose each arm's learning rate in short runs; test and val decide nothing."""
        every, epochs, batch = LABELS[labels]
        data = hold_out_a_tenth(self.parts["all"], self.root / "tuning")
        if every > 1:
            data = keep_one_of(data, self.root / "tuning-few", every)
        short = (
            *(*COMMON, *batch_of(batch), "--data_dir", str(data)),
            *("--epochs", str(self.epochs(epochs * SHORT_EPOCHS / EPOCHS))),
        )

        def folder(arm: Arm, rate: str) -> Path:
            return self.root / f"tune-{arm.folder}-{plain(labels)}-{rate}"

        def train(job: tuple[Arm, str]) -> None:
            arm, rate = job
            start = ("--config", "small_data", "--lr", rate, *self.start(arm, 0))
            run(folder(arm, rate), "train", *start, *short, "--val_every_epochs", "1000")

        list(self.pool.map(train, itertools.product(self.arms, RATES)))
        return {arm: max(RATES, key=lambda r, a=arm: final_top1(folder(a, r))) for arm in self.arms}

    def train(self) -> dict[str, dict[Arm, str]]:
        """Train everything, and return the learning rates that were chosen."""
        jobs = [(arm, seed) for seed in self.seeds for arm in self.arms if arm.mask_ratio]
        images = self.parts["all"]
        epochs = self.epochs(PRETRAINING_EPOCHS)
        list(
            self.pool.map(lambda job: pretrain(self.pretraining(*job), images, *job, epochs), jobs)
        )
        chosen = {labels: self.rates(labels) for labels in LABELS}

        def train(job: tuple[int, str, Arm]) -> None:
            seed, labels, arm = job
            _, full, batch = LABELS[labels]
            settings = (
                *("--config", "small_data", *COMMON, "--data_dir", str(self.parts[labels])),
                *("--epochs", str(self.epochs(full)), *batch_of(batch)),
                *("--lr", chosen[labels][arm], "--seed", str(seed), "--val_every_epochs", "1000"),
            )
            run(self.fine_tuning(arm, labels, seed), "train", *settings, *self.start(arm, seed))

        list(self.pool.map(train, itertools.product(self.seeds, LABELS, self.arms)))
        return chosen

    def figures(self, chosen: dict[str, dict[Arm, str]]) -> dict[str, object]:
        """Measure every run on test, and compare every arm with FCMAE."""
        right = {
            (labels, arm): np.stack(
                [
                    right_images(self.fine_tuning(arm, labels, seed), self.data, "test")
                    for seed in self.seeds
                ]
            )
            for labels, arm in itertools.product(LABELS, self.arms)
        }
        np.savez_compressed(
            self.root / "answers.npz",
            **{f"{labels}/{arm.folder}": each for (labels, arm), each in right.items()},
        )
        return {
            arm.name: {
                "feature_diversity": [diversity(self.pretraining(arm, s)) for s in self.seeds]
                if arm.mask_ratio
                else None,
                **{
                    labels: {
                        "lr": chosen[labels][arm],
                        "top1": right[labels, arm].mean(1).tolist(),
                        "below_fcmae": interval(
                            right[labels, GRN].astype(float) - right[labels, arm]
                        ),
                    }
                    for labels in LABELS
                },
            }
            for arm in self.arms
        }


def main() -> None:
    """Run the parts for each set, and write the figures."""
    if sys.argv[1:2] == ["masked-once"]:
        with masking_once():
            sys.exit(cli.main(["pretrain", *sys.argv[2:]]))
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--epochs_share", type=float, default=1.0, help="factor on all epochs [1]")
    arguments = parser.parse_args()
    if arguments.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    out: Path = arguments.out
    make_sets(arguments.data, out)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for name, part in itertools.product(arguments.sets, arguments.parts):
            root = out / f"runs-{name}"
            root.mkdir(exist_ok=True)
            share = arguments.epochs_share
            study = Study(root, out / name, PARTS[part], arguments.seeds, pool, share)
            found = study.figures(study.train())
            (root / f"{part}.json").write_text(json.dumps(found, indent=2) + "\n")
            print(json.dumps({name: {part: found}}, indent=2), flush=True)


if __name__ == "__main__":
    main()
