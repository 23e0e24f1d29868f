"""Measure what a teacher is worth where few photographs have labels.

    python benchmarks/distillation.py DATA OUT --init FCMAE --teacher RUN [--jobs 2] [KNOBS]

DATA is an image folder with train/ and val/. FCMAE is a pre-training on the same training images,
without their labels, and RUN a classifier of the same classes. The student learns from a tenth of
the labels (every tenth image of each class) and from all of them. Its four arms are random weights
and FCMAE's encoder, each with and without the teacher; with the teacher, the images without labels
join the training. The last averaged weights of every run are measured on the validation images,
which decide nothing else. OUT gets the run folders and the figures (distillation.json). Finished
runs are kept and halted ones resumed. KNOBS go to every run, for example --image_size 96.
"""

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from small_data import final_top1, run

ARMS = {
    "alone": (False, False),
    "from FCMAE": (True, False),
    "with the teacher": (False, True),
    "from FCMAE, with the teacher": (True, True),
}
"""Whether the student starts from FCMAE's encoder, and whether it has the teacher."""
LABELS = {"a tenth": 10, "all": 1}
"""One of how many training images has a label."""


def divide(data: Path, out: Path, every: int) -> Path:
    """Link every N-th training image of each class into train/, and the others into unlabelled/."""
    for split in ("train", "val"):
        for folder in sorted((data / split).iterdir()):
            for i, path in enumerate(sorted(folder.iterdir())):
                labelled = split == "val" or i % every == every // 2
                place = out / "data" / split / folder.name if labelled else out / "unlabelled"
                place.mkdir(parents=True, exist_ok=True)
                link = place / (path.name if labelled else f"{folder.name}-{path.name}")
                if not link.exists():
                    link.symlink_to(path.resolve())
    return out


def main() -> None:
    """Train all arms, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--init", required=True, help="a run of FCMAE on the training images")
    parser.add_argument("--teacher", required=True, help="a classifier of the same classes")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--few_epochs",
        type=int,
        default=100,
        help="epochs of the arms that see a tenth of the images only",
    )
    arguments, knobs = parser.parse_known_args()
    out: Path = arguments.out
    parts = {
        name: divide(arguments.data, out / name.replace(" ", "-"), every)
        for name, every in LABELS.items()
    }

    def folder(labels: str, arm: str, seed: int) -> Path:
        return parts[labels] / f"{arm.replace(',', '').replace(' ', '-')}-{seed}"

    def train(job: tuple[str, str, int]) -> None:
        labels, arm, seed = job
        fcmae, taught = ARMS[arm]
        settings = ["--config", "small_data", "--workers", "0", "--seed", str(seed)]
        settings += ["--data_dir", str(parts[labels] / "data"), *knobs]
        if fcmae:
            settings += ["--init", arguments.init]
        if taught:
            settings += ["--teacher", arguments.teacher, "--distill", "soft"]
        if LABELS[labels] > 1 and taught:
            settings += ["--unlabelled", str(parts[labels] / "unlabelled")]
        if LABELS[labels] > 1 and not taught:
            settings += ["--epochs", str(arguments.few_epochs)]
        run(folder(labels, arm, seed), "train", *settings)

    jobs = [
        (labels, arm, seed) for seed in range(arguments.seeds) for labels in LABELS for arm in ARMS
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train, jobs))
    found = {
        labels: {
            arm: [final_top1(folder(labels, arm, seed)) for seed in range(arguments.seeds)]
            for arm in ARMS
        }
        for labels in LABELS
    }
    (out / "distillation.json").write_text(json.dumps(found, indent=2) + "\n")
    print("| student | " + " | ".join(f"{labels} of the labels" for labels in LABELS) + " |")
    print("|---|" + "--:|" * len(LABELS))
    for arm in ARMS:
        cells = (
            f"{100 * statistics.mean(top1):.1f} ({100 * min(top1):.1f}-{100 * max(top1):.1f})"
            for top1 in (found[labels][arm] for labels in LABELS)
        )
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
