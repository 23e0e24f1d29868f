"""Several labels of each photograph, learned from a set of segmented photographs.

    python benchmarks/garments.py DATA OUT --init WEIGHTS

DATA has images/{train,val}, annotations/{train,val} with the class of every pixel, and classes.csv
(id, name). A label is a class with at least a hundredth of the visible person's pixels, so that a
sliver does not count; the background is none. Classes with fewer than 30 training photographs are
left out. OUT gets the table, the runs, an artifact, and figures.json: the figures of the averaged
weights after the last epoch, those of scikit-learn for the same probabilities, and the largest
difference between the answers of run, artifact and server. Finished runs are kept. The figures are
in docs/how-to/multi-label.md.
"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from studies import argument_parser, run

PORT = 8765
MIN_SHARE = 0.01
MIN_IMAGES = 30


def present(mask: Path) -> set[int]:
    """Return the ids of the garments in a photograph."""
    counts = np.bincount(np.asarray(Image.open(mask)).ravel(), minlength=256)
    person = counts[1:].sum()
    return {int(i) for i in np.flatnonzero(counts) if i and counts[i] >= MIN_SHARE * person}


def write_table(data: Path, out: Path) -> list[str]:
    """Write garments.csv with one column for each class, and return the classes."""
    with open(data / "classes.csv", newline="") as file:
        names = {int(row["id"]): row["name"] for row in csv.DictReader(file)}
    images = {
        split: {path: present(path) for path in sorted((data / "annotations" / split).iterdir())}
        for split in ("train", "val")
    }
    counts = {i: sum(i in found for found in images["train"].values()) for i in names}
    kept = [i for i in names if counts[i] >= MIN_IMAGES]
    with open(out / "garments.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", *(names[i] for i in kept)])
        for split, masks in images.items():
            for mask, found in masks.items():
                photograph = next((data / "images" / split).glob(f"{mask.stem}.*"))
                writer.writerow([photograph.resolve(), split, *(int(i in found) for i in kept)])
    return [names[i] for i in kept]


def predict(*arguments: str) -> dict[str, dict[str, float]]:
    """Predict by the command line: image -> label -> probability."""
    command = [sys.executable, "-m", "convnextv2", "predict", *arguments, "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {row["image"]: row["scores"] for row in map(json.loads, lines.splitlines())}


def matrix(
    answers: dict[str, dict[str, float]], images: list[str], classes: list[str]
) -> np.ndarray:
    """Return probabilities (N, K) of answers."""
    return np.array([[answers[image][name] for name in classes] for image in images])


def main() -> None:
    """Train, measure, and compare the answers."""
    parser = argument_parser(__doc__)
    parser.add_argument("--init", required=True)
    parser.add_argument("--epochs", default="40")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    classes, table = write_table(arguments.data, out), out / "garments.csv"
    common = ("--config", "small_data", "--data_dir", str(table), "--workers", "0")
    length = ("--epochs", arguments.epochs, "--lr", "2e-3")
    figures: dict[str, object] = {"classes": classes}
    for name, init in (("scratch", ""), ("fcmae", arguments.init)):
        run(out / name, "train", *common, *length, "--init", init)
        command = [sys.executable, "-m", "convnextv2", "validate", str(out / name), "--json"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[name] = json.loads(told.splitlines()[-1])
    with open(table, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    images = [row["path"] for row in rows]
    truth = np.array([[int(row[name]) for name in classes] for row in rows])
    probs = matrix(predict(str(out / "fcmae"), *images), images, classes)
    seen = truth.any(0)
    figures["scikit-learn"] = {
        "map_macro": average_precision_score(truth[:, seen], probs[:, seen], average="macro"),
        "f1_macro": f1_score(truth[:, seen], probs[:, seen] >= 0.5, average="macro"),
    }
    artifact = out / "artifact"
    if not artifact.exists():
        command = [sys.executable, "-m", "convnextv2", "export", str(out / "fcmae")]
        subprocess.run([*command, "--format", "onnx", "--out", str(artifact)], check=True)
    by_artifact = matrix(predict(str(artifact), *images), images, classes)
    serve = [sys.executable, "-m", "convnextv2", "serve", f"garments={artifact}"]
    server = subprocess.Popen([*serve, "--port", str(PORT)], stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{PORT}"
        for _ in range(120):
            try:
                urlopen(f"{address}/v2/health/ready")
                break
            except OSError:
                time.sleep(0.5)
        served = predict("garments", *images, "--server", address)
    finally:
        server.terminate()
        server.wait()
    by_server = matrix(served, images, classes)
    figures["largest difference"] = {
        "artifact and run": float(np.abs(by_artifact - probs).max()),
        "server and artifact": float(np.abs(by_server - by_artifact).max()),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({k: v for k, v in figures.items() if k not in ("scratch", "fcmae")}, indent=2))


if __name__ == "__main__":
    main()
