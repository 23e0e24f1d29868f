"""Which settings suit a small set of photographs: the table of docs/results.md behind configs/small_data.yaml.

    python benchmarks/small_data_variants.py DATA OUT [--jobs 2] [--seeds 1]

DATA: an image folder with train/ and val/. OUT: run folders and figures (variants.json). One FCMAE pre-training, then a run
for each variant, which changes one thing of the recipe `small_data`, trains on nine tenths of the training images and is measured
on the other tenth; the validation images decide nothing. Smaller images and fewer epochs than the recipe's, to compare many.
Finished runs are kept and halted ones resumed, so the script may be stopped and started again.
"""

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from small_data import COMMON, final_top1, hold_out_a_tenth, run

IMAGE_SIZE = 96
PRETRAINING_EPOCHS = 40
EPOCHS = 8
VARIANTS: dict[str, tuple[str, ...]] = {
    "as the recipe": (),
    "from scratch": ("--init", ""),
    "lr 1e-3": ("--lr", "1e-3"),
    "lr 4e-3": ("--lr", "4e-3"),
    "layer decay 0.8": ("--layer_decay", "0.8"),
    "no EMA": ("--ema", "False"),
    "RandAugment and erasing": (
        "--auto_augment",
        "randaug-m9-mstd0.5-inc1",
        "--erase_prob",
        "0.25",
    ),
    "drop path 0": ("--drop_path_rate", "0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    out: Path = arguments.out
    tenth = hold_out_a_tenth(arguments.data, out / "tenth")
    pretrained = out / f"pretrained-{IMAGE_SIZE}"
    size = ("--image_size", str(IMAGE_SIZE))
    run(
        pretrained,
        *(
            "pretrain",
            "--config",
            "fcmae_small_data",
            "--data_dir",
            str(arguments.data),
            "--workers",
            "0",
        ),
        *("--epochs", str(PRETRAINING_EPOCHS), *size),
    )

    def folder(name: str, seed: int) -> Path:
        return (
            out / "variants" / f"{name.replace(' ', '-').replace(',', '').replace('.', '_')}-{seed}"
        )

    def train(job: tuple[str, int]) -> None:
        name, seed = job
        init = () if "--init" in VARIANTS[name] else ("--init", str(pretrained))
        settings = ("--data_dir", str(tenth), *size, "--epochs", str(EPOCHS), "--seed", str(seed))
        run(folder(name, seed), "train", *COMMON, *settings, *init, *VARIANTS[name])

    jobs = [(name, seed) for seed in range(arguments.seeds) for name in VARIANTS]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train, jobs))
    figures = {
        name: [final_top1(folder(name, seed)) for seed in range(arguments.seeds)]
        for name in VARIANTS
    }
    (out / "variants.json").write_text(json.dumps(figures, indent=2) + "\n")
    for name, top1 in figures.items():
        each = " | ".join(f"{100 * value:.1f}" for value in top1)
        print(f"| {name} | {each} | {100 * statistics.mean(top1):.1f} |")


if __name__ == "__main__":
    main()
