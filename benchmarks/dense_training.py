"""Detectors and segmentors beside those of other libraries, trained for the same time on a CPU.

    python benchmarks/dense_training.py DATA OUT --minutes 30 [--jobs 2] [--init RUN]
                                        [--sets bccd nuclei] [--arms scratch peer]
                                        [--tries 3] [--seeds 2] [--peers FOLDER]

DATA has the folders bccd (boxes), nuclei (instance masks) and clothing_parsing (the class of every
pixel). Ours are atto by the recipes detect_small_data and segment_small_data:

scratch  from random weights
fcmae    from FCMAE on the same training images, which takes half of the minutes; it sees the tenth
         that chooses, too, but no annotation
given    from the weights that --init names, whose own training is not counted
peer     fasterrcnn_mobilenet_v3_large_320_fpn and maskrcnn_resnet50_fpn_v2 of torchvision, and
         UPerNet of segmentation-models-pytorch with timm's ResNet-18, from random weights
light    for nuclei, torchvision's MaskRCNN with ResNet-18 and the simple box head, likewise: a step
         of ResNet-50 v2 takes many seconds on a CPU

Every arm gets the same minutes: CPU time of one process with one thread, counted from the first
step. All of them have the same images, sizes, flips, scales and changes of colours, AdamW, an
average of the weights, and a cosine that ends with the time. Each tries the same learning rates, in
a third of the time, on nine tenths of the training images; the other tenth chooses. Then there is a
run on all training images for each seed, whose averaged weights are measured on the test images,
once. bccd has a split test; of the others, val is the test. pycocotools and NumPy measure everyone.

A run of ours has two epochs at least. So a sixth of the minutes must suffice for them, which is
what the arm fcmae has for a try. Sets differ in that: give each its minutes in a call of its own,
with the same OUT. OUT gets the images and the runs, and for each set figures.json and table.md.
Finished runs are kept, so the program may be stopped and started again; a run that was halted
starts over. It needs pycocotools, and segmentation-models-pytorch, which --peers finds in a folder
of its own:

    pip install --no-deps --target FOLDER segmentation-models-pytorch
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense_scores import objects, pixels, read_map
from dense_sets import SETS, DenseSet, images_of, lay_out
from equal_time import (
    RATES,
    Jobs,
    compare,
    comparison_parser,
    pretrain_ours,
    table,
    train_ours,
    write_figures,
    write_result,
)
from PIL import Image

import convnextv2
from convnextv2.weights.build import count_parameters
from convnextv2.weights.opened import open_weights

RUNS_BEFORE = {"fcmae": 0.5}
"""The arms that pre-train, and the share of their time that this takes."""
TUNING = 1 / 3
"""The share of a run's time that a run with another learning rate takes."""
OURS = {
    "scratch": "convnextv2 atto",
    "fcmae": "convnextv2 atto, FCMAE first",
    "given": "convnextv2 atto, from given weights",
}
PEERS = {
    "boxes": {"peer": "torchvision Faster R-CNN, MobileNetV3-Large 320 FPN"},
    "masks": {
        "peer": "torchvision Mask R-CNN, ResNet-50 FPN v2",
        "light": "torchvision Mask R-CNN, ResNet-18 FPN",
    },
    "pixels": {"peer": "segmentation-models-pytorch UPerNet, ResNet-18"},
}
ARMS = (*OURS, "peer", "light")
FIGURES = {
    "boxes": {"ap": "AP", "ap50": "AP50"},
    "masks": {"ap": "mask AP", "ap50": "mask AP50", "box_ap": "box AP"},
    "pixels": {
        "miou": "mIoU",
        "miou_present": "mIoU, classes present",
        "miou_frequent": "mIoU, classes in 10 images",
        "accuracy": "pixel accuracy",
    },
}


def pretrain(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Pre-train by FCMAE on the training images of a set."""
    spent = pretrain_ours(folder / "run", Path(job["data"]) / "photographs", job)
    return {"spent": asdict(spent)}


def train(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train an arm and measure it, in this process."""
    kind = SETS[job["set"]]
    found = (train_own if job["arm"] in OURS else train_peer)(folder, job, kind)
    if found["spent"]["diverged"]:
        found["scores"] = dict.fromkeys(FIGURES[kind.task], 0.0)
    return found


def train_own(folder: Path, job: dict[str, Any], kind: DenseSet) -> dict[str, Any]:
    """Train a network of ours, and measure its predictions."""
    data, run = Path(job["data"]), folder / "run"
    knobs: dict[str, Any] = {"config": "segment_small_data"}
    if kind.task != "pixels":
        knobs = {
            "config": "detect_small_data",
            "masks": "on" if kind.task == "masks" else "off",
            "finest_stride": kind.finest_stride,
            "anchor_scale": kind.anchor_scale,
        }
    spent = train_ours(
        "train",
        run,
        job["seconds"],
        **knobs,
        data_dir=str(data),
        image_size=job["size"],
        scale_jitter=list(kind.jitter),
        batch_size=kind.batch,
        lr=job["lr"],
        init=job["init"],
        seed=job["seed"],
        precision="float32",
    )
    result: dict[str, Any] = {"spent": asdict(spent), "parameters": 0, "scores": {}}
    if spent.diverged:
        return result
    images = images_of(data, job["split"], kind.task)
    opened = open_weights(run / "last" / "model.safetensors")
    result["parameters"] = count_parameters(opened.description)
    settings: dict[str, Any] = {"device": "cpu", "precision": "float32", "workers": 0}
    if kind.task == "pixels":
        # It writes the classes of pixels as images, in the order of the photographs.
        with contextlib.redirect_stdout(io.StringIO()):
            answers = convnextv2.predict(run / "last", images, out=folder / "found", **settings)
        maps = [Path(each["index"]) for each in answers]
        result["scores"] = score_maps(data, job["split"], images, maps)
        return result
    with contextlib.redirect_stdout(io.StringIO()):  # thousands of lines
        answers = convnextv2.predict(run / "last", images, threshold=0.0, **settings)
    found = json.loads((data / f"instances_{job['split']}.json").read_text())
    numbers = {each["file_name"]: each["id"] for each in found["images"]}
    classes = {each["name"]: each["id"] for each in found["categories"]}
    results = []
    for answer in answers:
        for each in answer["objects"]:
            left, top, right, bottom = each["box"]
            one = {
                "image_id": numbers[Path(answer["image"]).name],
                "category_id": classes[each["class"]],
                "bbox": [left, top, right - left, bottom - top],
                "score": each["score"],
            }
            if kind.task == "masks":
                one["segmentation"] = each["mask"]
            results.append(one)
    result["scores"] = score_objects(data, job["split"], results, kind)
    return result


def train_peer(folder: Path, job: dict[str, Any], kind: DenseSet) -> dict[str, Any]:
    """Train another library's network, and measure its predictions."""
    import dense_peers  # its packages are needed for nothing else

    data = Path(job["data"])
    model = dense_peers.build(data, kind, job["size"], light=job["arm"] == "light")
    spent = dense_peers.train(
        model, data, kind, size=job["size"], seconds=job["seconds"], lr=job["lr"], seed=job["seed"]
    )
    parameters = sum(each.numel() for each in model.parameters())
    result: dict[str, Any] = {"spent": asdict(spent), "parameters": parameters, "scores": {}}
    if spent.diverged:
        return result
    torch.save(model.state_dict(), folder / "averaged.pt")
    if kind.task == "pixels":
        images = images_of(data, job["split"], kind.task)
        (folder / "found").mkdir()
        maps = [folder / "found" / f"{path.stem}.png" for path in images]
        for path, image in zip(maps, images, strict=True):
            classes = dense_peers.find_classes(model, image, job["size"])
            Image.fromarray(np.asarray(classes)).save(path)
        result["scores"] = score_maps(data, job["split"], images, maps)
        return result
    results = dense_peers.find_objects(model, data, job["split"])
    result["scores"] = score_objects(data, job["split"], results, kind)
    return result


def score_maps(
    data: Path, split: str, images: Sequence[Path], maps: Sequence[Path]
) -> dict[str, float]:
    """Measure predicted classes of pixels, written as images."""
    from dense_peers import count_classes

    pairs = (
        (read_map(data / "annotations" / split / f"{image.stem}.png"), read_map(found))
        for image, found in zip(images, maps, strict=True)
    )
    return pixels(pairs, count_classes(data))


def score_objects(
    data: Path, split: str, results: list[dict[str, Any]], kind: DenseSet
) -> dict[str, float]:
    """Measure objects that were found."""
    return objects(data / f"instances_{split}.json", results, masks=kind.task == "masks")


def work(folder: Path) -> None:
    """Do the job that a folder describes, in this process."""
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    write_result(folder, (pretrain if job["kind"] == "pretrain" else train)(folder, job))


class Study:
    """The arms of all sets.

    Args:
        arguments: The arguments of the program.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out, self.sets = arguments, arguments.out, SETS
        self.data = {
            name: lay_out(name, arguments.data / name, self.out / name / "data", arguments.images)
            for name in arguments.sets
        }
        self.images = {
            name: len(images_of(folder / "full", "train", SETS[name].task))
            for name, folder in self.data.items()
        }

    def score(self, name: str) -> str:
        """Return the figure that chooses the learning rate."""
        return self.sets[name].score

    def _folder(self, name: str, *parts: object) -> Path:
        return Path(self.out, name, "runs", "-".join(map(str, parts)))

    def _job(self, name: str, arm: str, seed: int) -> dict[str, Any]:
        size = self.arguments.image_size or self.sets[name].size
        return {"set": name, "arm": arm, "seed": seed, "size": size, "images": self.images[name]}

    def pretraining(self, name: str, arm: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """Return folder and job of an arm's pre-training; None without one."""
        if arm not in RUNS_BEFORE:
            return None
        return self._folder(name, "pre", arm, seed), {
            "kind": "pretrain",
            **self._job(name, arm, seed),
            "data": str(self.data[name] / "full"),
            "seconds": 60 * self.arguments.minutes * RUNS_BEFORE[arm],
        }

    def training(
        self, name: str, arm: str, seed: int, rate: float, *, final: bool
    ) -> tuple[Path, dict[str, Any]]:
        """Return folder and job of a training: a final one, or one that tries a rate."""
        init = self.arguments.init if arm == "given" else ""
        if arm in RUNS_BEFORE:
            init = str(self._folder(name, "pre", arm, seed) / "run")
        left = 1 - RUNS_BEFORE.get(arm, 0.0)
        which = f"seed-{seed}" if final else f"lr-{rate:g}"
        return self._folder(name, arm, which), {
            "kind": "train",
            **self._job(name, arm, seed),
            "data": str(self.data[name] / ("full" if final else "tuning")),
            "split": "test" if final else "val",
            "seconds": 60 * self.arguments.minutes * left * (1 if final else TUNING),
            "lr": rate,
            "init": init,
        }


def main() -> None:
    """Run what is asked for, and write the figures."""
    parser = comparison_parser(__doc__, minutes=30)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=tuple(SETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="[all that can be run]")
    parser.add_argument("--init", default="", help="run or weights that the arm given starts from")
    parser.add_argument("--peers", type=Path, help="folder with segmentation-models-pytorch")
    parser.add_argument("--images", type=int, help="images of a split, to try the program")
    parser.add_argument("--image_size", type=int, help="image size in px, to try the program")
    arguments = parser.parse_args()
    if not arguments.arms:
        arguments.arms = [arm for arm in ARMS if arm != "given" or arguments.init]
    if "given" in arguments.arms:
        if not arguments.init or not Path(arguments.init).exists():
            parser.error(f"--init {arguments.init!r}: the arm given needs a run or weights.")
        arguments.init = str(Path(arguments.init).resolve())
    if arguments.minutes <= 0:
        parser.error(f"--minutes {arguments.minutes}: expected a number above 0.")
    for name in arguments.sets:
        if not (arguments.data / name).is_dir():
            parser.error(f"{arguments.data}: has no folder {name}. Leave it out with --sets.")
    arguments.out = arguments.out.resolve()
    if arguments.peers:
        paths = (str(arguments.peers.resolve()), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        sys.path.append(paths[0])
    needed = ["pycocotools"]
    if "peer" in arguments.arms and "clothing_parsing" in arguments.sets:
        needed.append("segmentation_models_pytorch")
    if missing := [each for each in needed if importlib.util.find_spec(each) is None]:
        parser.error(f"{' and '.join(missing)}: not installed. See the last lines of --help.")
    study = Study(arguments)
    figures = compare(
        study,
        Jobs(Path(__file__).resolve(), arguments.jobs),
        arms={
            name: [arm for arm in arguments.arms if arm in {**OURS, **PEERS[SETS[name].task]}]
            for name in study.data
        },
        rates=RATES[: arguments.tries],
        seeds=arguments.seeds,
    )
    for name, arms in figures.items():
        task = SETS[name].task
        text = table(arms, {**OURS, **PEERS[task]}, FIGURES[task])
        write_figures(arguments.out / name, arms, text)
        print(f"### {name}\n\n{text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        work(Path(sys.argv[2]))
    else:
        main()
