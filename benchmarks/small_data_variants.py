"""Find the settings that suit a small set of photographs, for small_data.yaml and finetune.yaml.

The tables are in docs/results.md.

    python benchmarks/small_data_variants.py small_data DATA OUT [--jobs 2] [--seeds 1]
    python benchmarks/small_data_variants.py finetune DATA OUT --init WEIGHTS [--only "lr 4e-3, "]

DATA is an image folder with train/ and val/. OUT gets the run folders and the figures
(variants.json). Without --init there is one FCMAE pre-training first. Then there is a run for each
variant. A variant changes something of the recipe, trains on nine tenths of the training images,
and is measured on the other tenth. The validation images decide nothing. Images may be smaller and
epochs fewer than the recipe's, so that many can be compared.
Finished runs are kept and halted ones resumed, so the script may be stopped and started again.
"""

import argparse
import json
from pathlib import Path

from studies import final_top1, hold_out_a_tenth, mean_and_range, plain, run, run_all

PRETRAINING_EPOCHS = 40
SETTINGS = {"small_data": (96, 8), "finetune": (128, 12)}
"""The image size in pixels and the epochs of all runs, by recipe."""
SMALL_DATA: dict[str, tuple[str, ...]] = {
    "as the recipe": (),
    "from scratch": ("--init", ""),
    "lr 1e-3": ("--lr", "1e-3"),
    "lr 4e-3": ("--lr", "4e-3"),
    "layer decay 0.8": ("--layer_decay", "0.8"),
    "no EMA": ("--ema", "False"),
    "RandAugment and erasing": (
        *("--auto_augment", "randaug-m9-mstd0.5-inc1"),
        *("--erase_prob", "0.25"),
    ),
    "drop path 0": ("--drop_path_rate", "0"),
}


FINETUNE: dict[str, tuple[str, ...]] = {
    "small_data": ("--config", "small_data"),
    **{
        f"lr {lr}, layer decay {decay}": ("--lr", lr, "--layer_decay", decay)
        for lr, decay in (
            ("5e-4", "0.8"),
            ("1e-3", "0.8"),
            ("2e-3", "0.8"),
            ("4e-3", "0.8"),
            ("8e-3", "0.8"),
            ("4e-3", "0.65"),
            ("4e-3", "0.9"),
        )
    },
    "GRN frozen": ("--freeze_grn",),
    "TrivialAugment": ("--auto_augment", "trivialaugwide"),
    "batch 32": ("--batch_size", "32"),
    "drop path 0": ("--drop_path_rate", "0"),
}
VARIANTS = {"small_data": SMALL_DATA, "finetune": FINETUNE}


def main() -> None:
    """Train all variants, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=VARIANTS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--init", help="weights to start from, in place of a pre-training")
    parser.add_argument("--only", default="", help="variants whose name contains this text")
    arguments = parser.parse_args()
    out: Path = arguments.out
    recipe = arguments.recipe
    variants = {k: v for k, v in VARIANTS[recipe].items() if arguments.only in k}
    image_size, epochs = SETTINGS[recipe]
    tenth = hold_out_a_tenth(arguments.data, out / "tenth")
    size = ("--image_size", str(image_size))
    start = arguments.init or str(out / f"pretrained-{image_size}")
    if not arguments.init:
        unlabelled = ("--config", "fcmae_small_data", "--data_dir", str(arguments.data))
        length = ("--workers", "0", "--epochs", str(PRETRAINING_EPOCHS), *size)
        run(Path(start), "pretrain", *unlabelled, *length)

    def folder(name: str, seed: int) -> Path:
        return out / "variants" / f"{plain(name)}-{seed}"

    def train(job: tuple[str, int]) -> None:
        name, seed = job
        changed = variants[name]
        config = () if "--config" in changed else ("--config", recipe)
        init = () if "--init" in changed else ("--init", start)
        settings = ("--data_dir", str(tenth), *size, "--epochs", str(epochs), "--seed", str(seed))
        run(folder(name, seed), "train", *config, "--workers", "0", *settings, *init, *changed)

    jobs = [(name, seed) for seed in range(arguments.seeds) for name in variants]
    run_all(train, jobs, arguments.jobs)
    figures = {
        name: [final_top1(folder(name, seed)) for seed in range(arguments.seeds)]
        for name in variants
    }
    (out / "variants.json").write_text(json.dumps(figures, indent=2) + "\n")
    for name, top1 in figures.items():
        each = " | ".join(f"{100 * value:.1f}" for value in top1)
        print(f"| {name} | {each} | {mean_and_range(top1)} |")


if __name__ == "__main__":
    main()
