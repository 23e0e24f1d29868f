"""From scratch against FCMAE pre-training on a small set of photographs: docs/results.md.

    python benchmarks/small_data.py DATA OUT [--jobs 3]

DATA is an image folder with train/ and val/. OUT gets the run folders, the figures (figures.json)
and pictures. Finished runs are kept and halted ones resumed, so the script may be stopped and
started again. The learning rate of each arm is the best of three in short runs that train on nine
tenths of the training images and validate on the other tenth. The validation images decide nothing.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from convnextv2.distributed import Place
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import evaluate_weights
from convnextv2.weights.opened import open_weights

LEARNING_RATES = {"scratch": ("1e-3", "2e-3", "4e-3"), "fcmae": ("5e-4", "1e-3", "2e-3")}
SEEDS = (0, 1, 2)
SHORT_EPOCHS = 10
COMMON = ("--config", "small_data", "--workers", "0")


def run(out: Path, *arguments: str) -> None:
    """One run of the command line, resumed where it was halted, left alone where it is finished."""
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


def hold_out_a_tenth(data: Path, out: Path) -> Path:
    """Link every tenth training image of each class into val/, and the others into train/."""
    for folder in sorted((data / "train").iterdir()):
        for i, path in enumerate(sorted(folder.iterdir())):
            link = out / ("val" if i % 10 == 5 else "train") / folder.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
    return out


def final_top1(folder: Path) -> float:
    """Validation top-1 after the last epoch."""
    return [record["top1"] for record in Run(folder).metrics() if record["kind"] == "eval"][-1]


def correct(folder: Path) -> np.ndarray:
    """Whether each validation image is right, by the weights after the last epoch."""
    weights = open_weights(folder / "last" / "model.safetensors")
    predictions = evaluate_weights(
        weights, Run(folder).recipe, Place(torch.device("cpu"))
    ).predictions
    order = np.argsort(predictions.indices)
    return (predictions.classes[:, 0] == predictions.targets)[order]


def bootstrap(difference: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean of (images,) by resampling images."""
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (draws, len(difference)))].mean(1)
    return tuple(np.quantile(means, [0.025, 0.975]).tolist())


def plot(out: Path, path: Path) -> None:
    """Validation top-1 of every run over the epochs, and the pre-training loss."""
    import matplotlib.pyplot as plt  # of the extra [benchmarks]

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for arm, colour, label in (
        ("fcmae", "#0b6478", "FCMAE, then fine-tuned"),
        ("scratch", "#9a8f80", "from scratch"),
    ):
        for seed in SEEDS:
            records = [
                record
                for record in Run(out / f"{arm}-{seed}").metrics()
                if record["kind"] == "eval"
            ]
            epochs, top1 = [r["epoch"] for r in records], [100 * r["top1"] for r in records]
            left.plot(epochs, top1, color=colour, label=label if seed == 0 else None)
    left.set(xlabel="epoch", ylabel="validation top-1, %", title="Fine-tuning, three seeds")
    left.legend(frameon=False)
    records = Run(out / "pretrained").metrics()
    right.plot([r["epoch"] for r in records], [r["loss"] for r in records], color="#0b6478")
    right.set(xlabel="epoch", ylabel="loss on masked tiles", title="FCMAE pre-training")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train all arms, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    tenth = hold_out_a_tenth(data, out / "tenth")
    pretrained = out / "pretrained"
    run(
        pretrained,
        "pretrain",
        "--config",
        "fcmae_small_data",
        "--data_dir",
        str(data),
        "--workers",
        "0",
    )
    init = {"scratch": (), "fcmae": ("--init", str(pretrained))}

    with ThreadPoolExecutor(arguments.jobs) as pool:
        short = ("--data_dir", str(tenth), "--epochs", str(SHORT_EPOCHS))
        list(
            pool.map(
                lambda job: run(
                    out / f"select-{job[0]}-{job[1]}",
                    "train",
                    *COMMON,
                    *short,
                    "--lr",
                    job[1],
                    *init[job[0]],
                ),
                [(arm, lr) for arm, rates in LEARNING_RATES.items() for lr in rates],
            )
        )
        chosen = {
            arm: max(rates, key=lambda lr, arm=arm: final_top1(out / f"select-{arm}-{lr}"))
            for arm, rates in LEARNING_RATES.items()
        }
        list(
            pool.map(
                lambda job: run(
                    out / f"{job[0]}-{job[1]}",
                    *(
                        "train",
                        *COMMON,
                        "--data_dir",
                        str(data),
                        "--lr",
                        chosen[job[0]],
                        "--seed",
                        str(job[1]),
                        *init[job[0]],
                    ),
                ),
                [(arm, seed) for arm in LEARNING_RATES for seed in SEEDS],
            )
        )

    right = {
        arm: np.stack([correct(out / f"{arm}-{seed}") for seed in SEEDS]) for arm in LEARNING_RATES
    }
    difference = (right["fcmae"].astype(float) - right["scratch"]).mean(0)
    figures = {
        "selection": {
            arm: {lr: final_top1(out / f"select-{arm}-{lr}") for lr in rates}
            for arm, rates in LEARNING_RATES.items()
        },
        "learning_rate": chosen,
        "top1": {arm: right[arm].mean(1).tolist() for arm in LEARNING_RATES},
        "mean": {arm: float(right[arm].mean()) for arm in LEARNING_RATES},
        "difference": float(difference.mean()),
        "interval": bootstrap(difference),
        "images": int(len(difference)),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    plot(out, out / "curves.png")


if __name__ == "__main__":
    main()
