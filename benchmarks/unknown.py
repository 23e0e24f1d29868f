"""Measure the coverage of the possible classes, and the detection of foreign images.

    python benchmarks/unknown.py DATA OUT [KNOBS]

DATA has the folders clothing (an image folder), bccd (COCO) and clothing_parsing (images with the
class of every pixel). Cells and garments are cut out of the last two. The images of each set are
dealt to train, val and test by the photograph that they come from. A classifier is trained on
train, and fitted on val by `export --coverage`; test is looked at only for the figures. Every image
of a set is foreign to the classifiers of the other two. OUT gets the images, the runs, the
artifacts and figures.json. Finished parts are kept. KNOBS go to every run. The figures are in
docs/how-to/unknown.md.
"""

import csv
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from studies import argument_parser, link_image, run

from convnextv2 import Predictor, export, validate
from convnextv2.deploy.artifact import open_artifact
from convnextv2.evaluation.conformal import least_probability
from convnextv2.evaluation.metrics import ClassifierEvaluation
from convnextv2.evaluation.unknown import features_of
from convnextv2.inference.scorer import open_scorer

EPOCHS = {"clothing": 24, "garments": 24, "cells": 8}
"""The number of epochs for each set. Cells are many, and easy to tell apart."""
GARMENTS = (
    *("bag", "blazer", "blouse", "coat", "dress", "hat", "jeans", "pants", "purse", "shirt"),
    *("shoes", "skirt", "sweater"),
)
MIN_SIDE_PX = 12
COVERAGE = 0.9
MAX_IMAGES = 100_000
"""A number larger than that of the images in any of the sets."""
SPLITS = 200
BATCH, ROUNDS = 32, 30
SHARES = (("train", 0.56), ("val", 0.78), ("test", 1.0))
"""The splits, and the end of each if photographs are spread evenly over 0 to 1."""
COMMON = (
    *("--config", "small_data", "--workers", "0", "--image_size", "64", "--batch_size", "32"),
    *("--val_every_epochs", "8"),
)


def split_of(photograph: str) -> str:
    """Assign a photograph to a split by its name alone."""
    digest = hashlib.sha256(photograph.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for name, end in SHARES if place < end)


def link_clothing(data: Path, out: Path) -> None:
    """Link all photographs of clothing."""
    for path in sorted(data.glob("*/*/*.*")):
        link_image(path, out / split_of(path.name) / path.parent.name / path.name)


def cut_cells(data: Path, out: Path) -> None:
    """Cut every cell out of the photographs of blood."""
    for part in ("train", "val", "test"):
        found = json.loads((data / f"instances_{part}.json").read_text())
        names = {each["id"]: each["name"] for each in found["categories"]}
        files = {each["id"]: each["file_name"] for each in found["images"]}
        boxes: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        for each in found["annotations"]:
            left, top, width, height = each["bbox"]
            box = tuple(map(round, (left, top, left + width, top + height)))
            boxes.setdefault(files[each["image_id"]], []).append((names[each["category_id"]], box))
        for file, listed in sorted(boxes.items()):
            _cut(next(data.glob(f"**/{Path(file).name}")), listed, out)


def cut_garments(data: Path, out: Path) -> None:
    """Cut the box around every garment out of the photographs of people."""
    with open(data / "classes.csv", newline="") as file:
        names = {int(row["id"]): row["name"] for row in csv.DictReader(file)}
    for mask in sorted((data / "annotations").glob("*/*.png")):
        classes = np.asarray(Image.open(mask))
        listed = []
        for number in np.unique(classes):
            if names[int(number)] in GARMENTS:
                rows, columns = np.nonzero(classes == number)
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                listed.append((names[int(number)], tuple(map(int, box))))
        photograph = next((data / "images" / mask.parent.name).glob(f"{mask.stem}.*"))
        _cut(photograph, listed, out)


def _cut(photograph: Path, boxes: list[tuple[str, tuple[int, ...]]], out: Path) -> None:
    with Image.open(photograph) as opened:
        picture = opened.convert("RGB")
    for i, (name, box) in enumerate(boxes):
        left, top, right, bottom = (max(0, side) for side in box)
        if min(right - left, bottom - top) < MIN_SIDE_PX:
            continue
        folder = out / split_of(photograph.name) / name
        folder.mkdir(parents=True, exist_ok=True)
        piece = picture.crop((left, top, min(right, picture.width), min(bottom, picture.height)))
        piece.save(folder / f"{photograph.stem}-{i}.png")


def make_sets(data: Path, out: Path) -> None:
    """Make the three image folders, unless they are there."""
    makers = {
        "clothing": (link_clothing, "clothing"),
        "cells": (cut_cells, "bccd"),
        "garments": (cut_garments, "clothing_parsing"),
    }
    for name, (make, folder) in makers.items():
        if not (out / name).exists():
            make(data / folder, out / f"{name}-making")
            (out / f"{name}-making").rename(out / name)


def measure(out: Path, name: str) -> dict[str, object]:
    """Fit on val, and measure on images that the classifier has never seen."""
    artifact = out / f"artifact-{name}"
    if not artifact.exists():
        export(
            out / f"run-{name}", format="onnx", coverage=COVERAGE, images=MAX_IMAGES, seconds=1,
            workers=0, out=artifact,
        )  # fmt: skip
    tested = validate(artifact, data_dir=out / name, val_split="test", coverage=COVERAGE, workers=0)
    assert isinstance(tested, ClassifierEvaluation) and tested.unknown is not None
    predictor = Predictor(artifact)
    own = far(predictor, out / name / "test")
    foreign = {other: far(predictor, out / other / "test") for other in EPOCHS if other != name}
    return {
        "top1": tested.top1,
        **asdict(tested.unknown),
        "resplit": resplit(predictor, out / name),
        "foreign_sets": {
            other: {"auroc": auroc(own, found), "called_foreign": float((found > 1).mean())}
            for other, found in foreign.items()
        },
        "cost": {f"{size} px": cost(out / f"run-{name}", artifact, size) for size in (64, 224)},
    }


def far(predictor: Predictor, folder: Path) -> np.ndarray:
    """Return the foreignness of the images in a folder, float32 (N,)."""
    found = [scores.foreignness for _, scores in predictor.scores(folder)]
    return np.concatenate([each for each in found if each is not None])


def auroc(own: np.ndarray, foreign: np.ndarray) -> float:
    """Return the area under the ROC curve of foreign images against known ones."""
    truth = np.repeat([0, 1], [len(own), len(foreign)])
    return float(roc_auc_score(truth, np.concatenate([own, foreign])))


def resplit(predictor: Predictor, data: Path) -> dict[str, float]:
    """Return mean and deviation of the coverage over random splits of val and test into halves."""
    right = []
    for folder in sorted((*data.glob("val/*"), *data.glob("test/*"))):
        column = predictor.scorer.class_names.index(folder.name)
        right += [scores.probs[:, column] for _, scores in predictor.scores(folder)]
    probs, rng = np.concatenate(right), np.random.default_rng(0)
    covered = []
    for _ in range(SPLITS):
        fit, test = np.split(rng.permutation(probs), [len(probs) // 2])
        covered.append(float((test >= least_probability(fit, COVERAGE)).mean()))
    return {"mean": float(np.mean(covered)), "deviation": float(np.std(covered))}


def cost(run: Path, artifact: Path, size: int) -> dict[str, float]:
    """Return the time of the network for an image, and that of the answer, in milliseconds."""
    bare, unknown = open_scorer(run), open_artifact(artifact).unknown()
    assert unknown is not None
    pixels = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    scores = bare(pixels)
    took: dict[str, list[float]] = {"network": [], "unknown": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        bare(pixels)
        between = time.perf_counter()
        unknown.possible(scores.probs)
        unknown.foreignness(features_of(scores.embedding, pixels))
        took["network"].append(between - start)
        took["unknown"].append(time.perf_counter() - between)
    ms = {name: 1000 * float(np.median(each)) / BATCH for name, each in took.items()}
    return {**ms, "share": ms["unknown"] / ms["network"]}


def main() -> None:
    """Cut, train, fit and measure."""
    parser = argument_parser(__doc__)
    arguments, knobs = parser.parse_known_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    make_sets(arguments.data, out)
    for name, epochs in EPOCHS.items():
        own = ("--data_dir", str(out / name), "--epochs", str(epochs))
        run(out / f"run-{name}", "train", *COMMON, *own, *knobs)
    figures = {name: measure(out, name) for name in EPOCHS}
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
