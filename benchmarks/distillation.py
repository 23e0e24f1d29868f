"""Measure the gain from a teacher if few photographs have labels.

    python benchmarks/distillation.py DATA OUT --init FCMAE --teacher RUN [--jobs 2] [KNOBS]

DATA is an image folder with train/ and val/. FCMAE is a pre-training on the same training images,
without their labels, and RUN a classifier of the same classes. The student learns from a tenth of
the labels (every tenth image of each class) and from all of them. Its four arms are random weights
and FCMAE's encoder, each with and without the teacher; with the teacher, the images without labels
join the training. The last averaged weights of every run are measured on the validation images,
which decide nothing else. OUT gets the run folders and the figures (distillation.json). Finished
runs are kept and halted ones resumed. KNOBS go to every run, for example --image_size 96.
"""

import json
from pathlib import Path

from studies import (
    SEEDS,
    argument_parser,
    final_top1,
    keep_one_of,
    mean_and_range,
    plain,
    run,
    run_all,
)

ARMS = {
    "alone": (False, False),
    "from FCMAE": (True, False),
    "with the teacher": (False, True),
    "from FCMAE, with the teacher": (True, True),
}
"""The arms: (the student starts from FCMAE's encoder, it has the teacher)."""
LABELS = {"a tenth": 10, "all": 1}
"""The labelled training images: one in this many has a label."""


def main() -> None:
    """Train all arms, and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--init", required=True, help="a run of FCMAE on the training images")
    parser.add_argument("--teacher", required=True, help="a classifier of the same classes")
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=tuple(LABELS))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument(
        "--few_epochs",
        type=int,
        default=100,
        help="epochs of the arms that see a tenth of the images only",
    )
    arguments, knobs = parser.parse_known_args()
    chosen: list[str] = arguments.labels
    seeds = range(arguments.seeds)
    parts = {name: arguments.out / plain(name) for name in chosen}
    for name, part in parts.items():
        keep_one_of(arguments.data, part / "data", LABELS[name], others=part / "unlabelled")

    def folder(labels: str, arm: str, seed: int) -> Path:
        return parts[labels] / f"{plain(arm)}-{seed}"

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

    jobs = [(labels, arm, seed) for seed in seeds for labels in chosen for arm in ARMS]
    run_all(train, jobs, arguments.jobs)
    found = {
        labels: {arm: [final_top1(folder(labels, arm, seed)) for seed in seeds] for arm in ARMS}
        for labels in chosen
    }
    (arguments.out / "distillation.json").write_text(json.dumps(found, indent=2) + "\n")
    print("| student | " + " | ".join(f"{labels} of the labels" for labels in chosen) + " |")
    print("|---|" + "--:|" * len(chosen))
    for arm in ARMS:
        cells = (mean_and_range(found[labels][arm]) for labels in chosen)
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
