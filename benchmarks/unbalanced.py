"""Compare what can be done about unbalanced classes: docs/how-to/unbalanced.md.

    python benchmarks/unbalanced.py DATA OUT --init WEIGHTS [--jobs 2] [KNOBS]

DATA is an image folder with train/ and val/. Training images are left out until the classes have a
long tail: the number of images falls geometrically from the most frequent class to a fiftieth of
it. All validation images stay. Every variant is trained with three seeds from the same weights, and
the averaged weights after the last epoch are measured. OUT gets the run folders and the figures
(unbalanced.json). Finished runs are kept and halted ones resumed. KNOBS go to every run, for
example --epochs 15 --image_size 96 for shorter ones.
"""

import json
from pathlib import Path

import torch
from studies import SEEDS, argument_parser, link_image, mean_and_range, plain, run, run_all

from convnextv2.distributed import Place
from convnextv2.run import Run
from convnextv2.tasks.classification.measure import evaluate_classifier
from convnextv2.weights.opened import open_weights

RATIO = 50
"""Images of the most frequent class for each image of the rarest."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "class_weights balanced": ("--class_weights", "balanced"),
    "class_weights effective": ("--class_weights", "effective"),
    "sampling sqrt": ("--sampling", "sqrt"),
    "sampling balanced": ("--sampling", "balanced"),
    "logit_adjustment 1": ("--logit_adjustment", "1"),
}
AFTERWARDS = "nothing, then --prior balanced"
FIGURES = ("balanced_accuracy", "macro_f1", "top1")


def leave_out(data: Path, out: Path) -> Path:
    """Link the images of a long tail into OUT/train, and all validation images into OUT/val."""
    folders = sorted((data / "train").iterdir(), key=lambda f: (-len(list(f.iterdir())), f.name))
    most = len(list(folders[0].iterdir()))
    for rank, folder in enumerate(folders):
        wanted = round(most * RATIO ** (-rank / (len(folders) - 1)))
        for path in sorted(folder.iterdir())[:wanted]:
            link_image(path, out / "train" / folder.name / path.name)
        for path in sorted((data / "val" / folder.name).iterdir()):
            link_image(path, out / "val" / folder.name / path.name)
    return out


def figures_of(folder: Path, prior: str = "trained") -> dict[str, float]:
    """Measure the weights after the last epoch."""
    weights = open_weights(folder / "last" / "model.safetensors")
    place = Place(torch.device("cpu"))
    evaluation = evaluate_classifier(weights, Run(folder).recipe, place, prior).evaluation
    return {name: float(getattr(evaluation, name)) for name in FIGURES}


def main() -> None:
    """Train all variants, and write the figures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--init", required=True, help="weights to start from")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments, knobs = parser.parse_known_args()
    out: Path = arguments.out
    data = leave_out(arguments.data, out / "long-tail")

    def folder(name: str, seed: int) -> Path:
        return out / f"{plain(name)}-{seed}"

    def train(job: tuple[str, int]) -> None:
        name, seed = job
        common = ("--config", "small_data", "--data_dir", str(data), "--workers", "0")
        start = ("--init", arguments.init, "--seed", str(seed))
        run(folder(name, seed), "train", *common, *start, *VARIANTS[name], *knobs)

    jobs = [(name, seed) for seed in SEEDS for name in VARIANTS]
    run_all(train, jobs, arguments.jobs)
    found = {name: [figures_of(folder(name, seed)) for seed in SEEDS] for name in VARIANTS}
    found[AFTERWARDS] = [figures_of(folder("nothing", seed), "balanced") for seed in SEEDS]
    (out / "unbalanced.json").write_text(json.dumps(found, indent=2) + "\n")
    print("| what is done | balanced accuracy, % | macro F1, % | top-1, % |\n|---|--:|--:|--:|")
    for name, runs in found.items():
        cells = (mean_and_range([figures[figure] for figures in runs]) for figure in FIGURES)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
