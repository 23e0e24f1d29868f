"""Compare training from scratch with FCMAE pre-training on few photographs: docs/results.md.

    python benchmarks/small_data.py DATA OUT [--jobs 3]

DATA is an image folder with train/ and val/. OUT gets the run folders, the figures (figures.json)
and pictures. Finished runs are kept and halted ones resumed, so the script may be stopped and
started again. The learning rate of each arm is the best of three in short runs that train on nine
tenths of the training images and validate on the other tenth. The validation images decide nothing.
"""

import json
from pathlib import Path

import numpy as np
from studies import (
    SEEDS,
    argument_parser,
    final_top1,
    hold_out_a_tenth,
    interval,
    right_images,
    run,
    run_all,
)

from convnextv2.run import Run

LEARNING_RATES = {"scratch": ("1e-3", "2e-3", "4e-3"), "fcmae": ("5e-4", "1e-3", "2e-3")}
SHORT_EPOCHS = 10
COMMON = ("--config", "small_data", "--workers", "0")


def plot(out: Path, path: Path) -> None:
    """Draw the validation top-1 of every run over the epochs, and the pre-training loss."""
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
    parser = argument_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    tenth = hold_out_a_tenth(data, out / "tenth")
    pretrained = out / "pretrained"
    unlabelled = ("--config", "fcmae_small_data", "--data_dir", str(data), "--workers", "0")
    run(pretrained, "pretrain", *unlabelled)
    init = {"scratch": (), "fcmae": ("--init", str(pretrained))}

    def select(job: tuple[str, str]) -> None:
        arm, lr = job
        short = ("--data_dir", str(tenth), "--epochs", str(SHORT_EPOCHS), "--lr", lr)
        run(out / f"select-{arm}-{lr}", "train", *COMMON, *short, *init[arm])

    tries = [(arm, lr) for arm, rates in LEARNING_RATES.items() for lr in rates]
    run_all(select, tries, arguments.jobs)
    selection = {
        arm: {lr: final_top1(out / f"select-{arm}-{lr}") for lr in rates}
        for arm, rates in LEARNING_RATES.items()
    }
    chosen = {arm: max(found, key=found.__getitem__) for arm, found in selection.items()}

    def train(job: tuple[str, int]) -> None:
        arm, seed = job
        settings = ("--data_dir", str(data), "--lr", chosen[arm], "--seed", str(seed))
        run(out / f"{arm}-{seed}", "train", *COMMON, *settings, *init[arm])

    run_all(train, [(arm, seed) for arm in LEARNING_RATES for seed in SEEDS], arguments.jobs)
    right = {
        arm: np.stack([right_images(out / f"{arm}-{seed}") for seed in SEEDS])
        for arm in LEARNING_RATES
    }
    difference = (right["fcmae"].astype(float) - right["scratch"]).mean(0)
    figures = {
        "selection": selection,
        "learning_rate": chosen,
        "top1": {arm: right[arm].mean(1).tolist() for arm in LEARNING_RATES},
        "mean": {arm: float(right[arm].mean()) for arm in LEARNING_RATES},
        "difference": float(difference.mean()),
        "interval": interval(difference),
        "images": int(len(difference)),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    plot(out, out / "curves.png")


if __name__ == "__main__":
    main()
