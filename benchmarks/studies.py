"""Prepares the images, does the runs and computes the figures of studies of classification."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from convnextv2.distributed import Place
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import evaluate_classifier
from convnextv2.weights.opened import open_weights

SEEDS = (0, 1, 2)
Job = TypeVar("Job")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Build a parser of the arguments that studies share: the images, and where results go.

    Args:
        description: The docstring of the program, which its help prints as it stands.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    return parser


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder by name. A licence or a README beside them is passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def link_image(path: Path, link: Path) -> None:
    """Make a symbolic link to an image, and the folders above it, unless the link exists."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(path.resolve(strict=True))


def hold_out_a_tenth(data: Path, out: Path) -> Path:
    """Link every tenth training image of each class into val/, and the others into train/.

    Returns:
        `out`.
    """
    for folder in folders_in(data / "train"):
        for i, path in enumerate(sorted(folder.iterdir())):
            link_image(path, out / ("val" if i % 10 == 5 else "train") / folder.name / path.name)
    return out


def keep_one_of(data: Path, out: Path, every: int, *, others: Path | None = None) -> Path:
    """Link every N-th training image of each class, at least one, and all of the other splits.

    Args:
        data: An image folder with splits.
        out: Where the links are made.
        every: One of how many training images is kept.
        others: A folder for links to the training images that are not kept, without classes.

    Returns:
        `out`.
    """
    for split in folders_in(data):
        for folder in folders_in(split):
            paths = sorted(folder.iterdir())
            kept = paths
            if split.name == "train":
                kept = paths[every // 2 :: every] or paths[:1]
            for path in kept:
                link_image(path, out / split.name / folder.name / path.name)
            if others is not None:
                for path in set(paths).difference(kept):
                    link_image(path, others / f"{folder.name}-{path.name}")
    return out


def run(out: Path, *arguments: str) -> None:
    """Run a verb of the command line, and write what it prints beside its run folder.

    A finished run is left alone, and a halted one is resumed.

    Args:
        out: The run folder.
        arguments: The verb and its options.
    """
    if (out / "report.html").exists():
        return
    if (out / "checkpoints").exists():
        arguments = (arguments[0], "--resume")
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        subprocess.run(
            [sys.executable, "-m", "convnextv2", *arguments, "--out", str(out)],
            check=True,
            stdout=file,
            stderr=file,
        )


def run_all(train: Callable[[Job], None], jobs: Iterable[Job], side_by_side: int) -> None:
    """Do all jobs, some of them side by side."""
    with ThreadPoolExecutor(side_by_side) as pool:
        list(pool.map(train, jobs))


def final_top1(folder: Path) -> float:
    """Return the validation top-1 of the averaged weights after the last epoch, as a share."""
    return [record["top1"] for record in Run(folder).metrics() if record["kind"] == "eval"][-1]


def right_images(folder: Path, data: Path | None = None, split: str | None = None) -> np.ndarray:
    """Find which images the averaged weights after the last epoch classify rightly.

    Args:
        folder: The run folder.
        data: The images; those of the run if None.
        split: Their split; that of the run's validation if None.

    Returns:
        Booleans (images,), in the order of the images.
    """
    recipe = Run(folder).recipe
    if data is not None:
        recipe = recipe.model_copy(update={"data_dir": str(data)})
    if split is not None:
        recipe = recipe.model_copy(update={"val_split": split})
    weights = open_weights(folder / "last" / "model.safetensors")
    found = evaluate_classifier(weights, recipe, Place(torch.device("cpu"))).predictions
    order = np.argsort(found.indices)
    return np.asarray(found.classes[:, 0] == found.targets)[order]


def interval(differences: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """Return the 95 % interval of the mean of (images,), from resampled images."""
    rng = np.random.default_rng(0)
    count = len(differences)
    means = differences[rng.integers(0, count, (draws, count))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mean_and_range(values: Sequence[float], factor: float = 100) -> str:
    """Write the mean of values and, of several, the smallest and the largest."""
    listed = [factor * each for each in values]
    mean = f"{sum(listed) / len(listed):.1f}"
    return mean if len(listed) == 1 else f"{mean} ({min(listed):.1f} to {max(listed):.1f})"


def plain(name: str) -> str:
    """Return a name without what is awkward in a path."""
    return name.replace(",", "").replace("'", "").replace(" ", "-").replace(".", "_")
