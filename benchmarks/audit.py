"""Planted faults: how many an audit finds, beside cleanvision and cleanlab on the same images.

    python benchmarks/audit.py DATA OUT [--peers FOLDER] [--init WEIGHTS]

DATA holds three sets of real photographs: clothing/{train,val}/CLASS; bccd, whose blood cells are
cut out by box and class; and clothing_parsing, whose garments are cut out by the box around the
pixels of each class. OUT gets a copy of each set with planted faults, the audits, and figures.json:

- 50 leaks: training images that come back in val, written again, half as large, lighter, cut by up
  to 6 % of each side, or mirrored, ten of each
- wrong labels: 5 % of the training images, each moved to another class at random
- 30 bad files: cut short, empty, damaged in the middle, a page of HTML, zeros, a text; five of each

FOLDER is where `pip install --target FOLDER cleanvision cleanlab` has put the peers; they are run
on the same images, cleanlab on the same out-of-sample probabilities. Images beyond 3,000 in a set
are left out. The figures are in docs/how-to/audit.md.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from studies import argument_parser

from convnextv2.auditing.descriptor import describe
from convnextv2.auditing.labels import judge
from convnextv2.auditing.scan import look_at

LEAKS, BAD, WRONG = 50, 30, 0.05
MAX_IMAGES = 3000
MIN_SIDE = 24
MIN_IN_CLASS = 60


def clothing(data: Path, out: Path) -> None:
    """Copy the photographs of clothes."""
    for split in ("train", "val"):
        shutil.copytree(data / "clothing" / split, out / split)


def cells(data: Path, out: Path) -> None:
    """Cut blood cells out of photographs of smears, by box and class."""
    root = data / "bccd"
    for split, name in (("train", "train"), ("val", "test")):
        content = json.loads((root / f"instances_{name}.json").read_text())
        names = {each["id"]: each["name"] for each in content["categories"]}
        files = {each["id"]: each["file_name"] for each in content["images"]}
        for each in content["annotations"]:
            x, y, width, height = each["bbox"]
            if min(width, height) < MIN_SIDE:
                continue
            with Image.open(next(root.rglob(Path(files[each["image_id"]]).name))) as image:
                part = image.convert("RGB").crop((x, y, x + width, y + height))
            write(part, out / split / names[each["category_id"]] / f"{each['id']}.jpg")


def garments(data: Path, out: Path) -> None:
    """Cut garments out of photographs, by the box around the pixels of each class."""
    root = data / "clothing_parsing"
    with open(root / "classes.csv", newline="") as file:
        names = {int(row["id"]): row["name"] for row in csv.DictReader(file)}
    for split in ("train", "val"):
        for mask in sorted((root / "annotations" / split).iterdir()):
            values = np.asarray(Image.open(mask))
            with Image.open(next((root / "images" / split).glob(f"{mask.stem}.*"))) as image:
                picture = image.convert("RGB")
            for number in np.unique(values[values > 0]).tolist():
                rows, columns = np.nonzero(values == number)
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE and names[number] != "null":
                    part = picture.crop(tuple(int(edge) for edge in box))
                    write(part, out / split / names[number] / f"{mask.stem}.jpg")


def write(picture: Image.Image, path: Path, quality: int = 92) -> None:
    """Write a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=quality)


def trim(root: Path, rng: np.random.Generator) -> None:
    """Leave out rare classes, and images beyond the most that a set may have."""
    for folder in sorted((root / "train").iterdir()):
        if len(list(folder.iterdir())) < MIN_IN_CLASS:
            for split in ("train", "val"):
                shutil.rmtree(root / split / folder.name, ignore_errors=True)
    kept = {folder.name for folder in (root / "train").iterdir()}
    for folder in sorted((root / "val").iterdir()):
        if folder.name not in kept:
            shutil.rmtree(folder)
    paths = sorted(root.glob("*/*/*"))
    for i in rng.permutation(len(paths))[MAX_IMAGES:].tolist():
        paths[i].unlink()


def changed(picture: Image.Image, kind: int, rng: np.random.Generator) -> Image.Image:
    """Change a copy in one of five ways."""
    width, height = picture.size
    if kind == 1:
        return picture.resize((max(8, width // 2), max(8, height // 2)), Image.Resampling.LANCZOS)
    if kind == 2:
        return ImageEnhance.Brightness(picture).enhance(1.15)
    if kind == 3:
        left, top, right, bottom = rng.uniform(0, 0.06, 4)
        edges = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        return picture.crop(tuple(round(edge) for edge in edges))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if kind == 4 else picture


def broken(data: bytes, kind: int) -> bytes:
    """Damage a file in one of six ways."""
    middle = len(data) // 2
    return (
        data[:middle],
        b"",
        data[:middle] + bytes(255 - byte for byte in data[middle : middle + 400]) + data[middle:],
        b"<!doctype html><title>404 Not Found</title>",
        bytes(len(data)),
        b"lost",
    )[kind]


def plant(root: Path, rng: np.random.Generator) -> dict:
    """Plant the faults, and say where they are."""
    training = sorted(str(path) for path in (root / "train").glob("*/*"))
    classes = sorted(folder.name for folder in (root / "train").iterdir())
    order = rng.permutation(len(training)).tolist()
    leaks, bad = order[:LEAKS], order[LEAKS : LEAKS + BAD]
    wrong = order[LEAKS + BAD : LEAKS + BAD + round(WRONG * len(training))]
    planted: dict = {"leaks": [], "bad": [], "wrong": {}}
    for number, i in enumerate(leaks):
        path = Path(training[i])
        with Image.open(path) as image:
            copy = changed(image.convert("RGB"), number % 5, rng)
        target = root / "val" / path.parent.name / f"leak-{number}.jpg"
        write(copy, target, int(rng.integers(50, 92)))
        planted["leaks"].append(str(target))
    for number, i in enumerate(bad):
        path = Path(training[i])
        path.write_bytes(broken(path.read_bytes(), number % 6))
        planted["bad"].append(str(path))
    for number, i in enumerate(wrong):
        path = Path(training[i])
        others = [name for name in classes if name != path.parent.name]
        target = root / "train" / others[rng.integers(len(others))] / f"wrong-{number}.jpg"
        planted["wrong"][str(path.rename(target))] = path.parent.name
    return planted


def run_audit(root: Path, out: Path, init: str) -> tuple[dict, dict[str, float]]:
    """Audit a set, and return audit.json, the seconds, and the seconds of all cores together."""
    began, used = time.monotonic(), os.times()
    command = [sys.executable, "-m", "convnextv2", "audit", str(root), "--out", str(out)]
    subprocess.run([*command, *(["--init", init] if init else [])], check=True)
    took, now = time.monotonic() - began, os.times()
    cores = now.children_user + now.children_system - used.children_user - used.children_system
    return json.loads((out / "audit.json").read_text()), {"seconds": took, "core seconds": cores}


def scored(planted: dict, record: dict) -> dict:
    """Compare what was found with what was planted."""
    found = {
        kind: [f for f in record["findings"] if f["kind"] == kind] for kind in record["counts"]
    }
    leaks = {f["path"] for f in found.get("leak", [])} | {f["other"] for f in found.get("leak", [])}
    bad = {f["path"] for f in found.get("unreadable", [])}
    named = [f["path"] for f in found.get("wrong_label", [])]
    hits = [path in planted["wrong"] for path in named]
    planted_leaks = set(planted["leaks"])
    unplanted = [f for f in found.get("leak", []) if not {f["path"], f["other"]} & planted_leaks]
    right = sum(
        planted["wrong"].get(f["path"]) == f["suggested"] for f in found.get("wrong_label", [])
    )
    return {
        "images": record["images"],
        "leaks": {
            "recall": len(leaks & planted_leaks) / LEAKS,
            "missed": sorted(planted_leaks - leaks),
            "not planted": len(unplanted),
        },
        "bad files": {
            "recall": len(bad & set(planted["bad"])) / BAD,
            "missed": sorted(set(planted["bad"]) - bad),
            "not planted": len(bad - set(planted["bad"])),
        },
        "labels": {
            "planted": len(planted["wrong"]),
            "named": len(named),
            "precision": sum(hits) / len(hits) if hits else None,
            "recall": sum(hits) / len(planted["wrong"]),
            "right class suggested": right,
            "note": record["labels"],
        },
    }


def run_cleanvision(root: Path, planted: dict, peers: Path) -> dict:
    """Run cleanvision on a set, and count planted leaks among its sets of copies."""
    bad = planted["bad"]
    script = """
import json, sys
sys.path.append(sys.argv[2])
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
lab.find_issues()
sets = [s for kind in ("exact_duplicates", "near_duplicates")
        for s in lab.info.get(kind, {}).get("sets", [])]
print("RESULT" + json.dumps(sets))
"""
    began = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-c", script, str(root), str(peers)], capture_output=True, text=True
    )
    seconds = time.monotonic() - began
    lines = [line for line in told.stdout.splitlines() if line.startswith("RESULT")]
    if told.returncode or not lines:
        error = told.stderr.strip().splitlines()[-1:]
        if not bad:
            return {"seconds": seconds, "error": error}
        good = root.parent / "good"  # files that cannot be read end it
        shutil.copytree(root, good, dirs_exist_ok=True)
        for path in bad:
            (good / Path(path).relative_to(root)).unlink(missing_ok=True)
        leaks = [str(good / Path(path).relative_to(root)) for path in planted["leaks"]]
        again = run_cleanvision(good, {"leaks": leaks, "bad": []}, peers)
        return {"with bad files": error, **again}
    sets = json.loads(lines[0].removeprefix("RESULT"))
    known = {str(Path(path).resolve()) for path in planted["leaks"]}
    together = {path for each in sets if _crosses(each) for path in each}
    return {
        "seconds": seconds,
        "leaks": len({str(Path(path).resolve()) for path in together} & known) / LEAKS,
        "sets across splits without a planted leak": sum(
            _crosses(each) and not {str(Path(p).resolve()) for p in each} & known for each in sets
        ),
    }


def _crosses(paths: list[str]) -> bool:
    return len({Path(path).parts[-3] for path in paths}) > 1


def run_cleanlab(root: Path, planted: dict, peers: Path, out: Path) -> dict:
    """Run cleanlab on out-of-sample probabilities of the quick descriptor."""
    classes = sorted(folder.name for folder in (root / "train").iterdir())
    paths = sorted(str(path) for path in root.glob("*/*/*"))
    looks = look_at(paths, max_pixels=10**8)
    kept = [i for i, look in enumerate(looks) if not look.error]
    small = np.stack([looks[i].small for i in kept])
    labels = np.array([classes.index(Path(paths[i]).parent.name) for i in kept])
    import torch

    probs = judge(describe(small), torch.from_numpy(labels), len(classes)).logits.softmax(1)
    np.savez(out / "probs.npz", probs=probs.numpy(), labels=labels)
    script = """
import json, sys
sys.path.append(sys.argv[2])
import numpy as np
from cleanlab.filter import find_label_issues
content = np.load(sys.argv[1])
found = {}
for rule in ("prune_by_noise_rate", "both", "confident_learning"):
    found[rule] = find_label_issues(content["labels"], content["probs"], filter_by=rule,
        return_indices_ranked_by="self_confidence", n_jobs=1).tolist()
print("RESULT" + json.dumps(found))
"""
    told = subprocess.run(
        [sys.executable, "-c", script, str(out / "probs.npz"), str(peers)],
        capture_output=True,
        text=True,
    )
    lines = [line for line in told.stdout.splitlines() if line.startswith("RESULT")]
    if told.returncode or not lines:
        return {"error": told.stderr.strip().splitlines()[-1:]}
    result = {}
    for rule, indices in json.loads(lines[0].removeprefix("RESULT")).items():
        hits = [paths[kept[i]] in planted["wrong"] for i in indices]
        result[rule] = {
            "named": len(hits),
            "precision": sum(hits) / len(hits) if hits else None,
            "recall": sum(hits) / len(planted["wrong"]),
        }
    return result


def main() -> None:
    """Plant faults in three sets, and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--init", default="")
    arguments = parser.parse_args()
    figures: dict[str, dict] = {}
    for seed, (name, make) in enumerate(
        (("clothing", clothing), ("cells", cells), ("garments", garments))
    ):
        rng = np.random.default_rng(seed)
        root, out = arguments.out / name / "data", arguments.out / name / "audit"
        shutil.rmtree(arguments.out / name, ignore_errors=True)
        root.mkdir(parents=True)
        make(arguments.data, root)
        trim(root, rng)
        planted = plant(root, rng)
        (arguments.out / name / "planted.json").write_text(json.dumps(planted, indent=2))
        counts = Counter(path.parent.name for path in root.glob("train/*/*"))
        record, took = run_audit(root, out, arguments.init)
        figures[name] = {**took, **scored(planted, record), "classes": len(counts)}
        if arguments.peers:
            figures[name]["cleanvision"] = run_cleanvision(root, planted, arguments.peers)
            figures[name]["cleanlab"] = run_cleanlab(root, planted, arguments.peers, out.parent)
        (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        print(name, json.dumps(figures[name], indent=2), flush=True)


if __name__ == "__main__":
    main()
