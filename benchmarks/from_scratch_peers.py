"""Classifiers from scratch beside those of timm and LightlyTrain, in the same time on a CPU.

    python benchmarks/from_scratch_peers.py DATA OUT --minutes 20 [--jobs 2] [--sets clothing cells]
                                            [--arms ours timm] [--tries 3] [--seeds 2]
                                            [--image_size 64] [--lightly FOLDER]

DATA has the folders clothing, bccd and clothing_parsing, from which benchmarks/unknown.py makes
three sets of images with the splits train, val and test. All arms train ConvNeXt V2 atto:

ours          the recipe small_data
fcmae         FCMAE by the recipe fcmae_small_data, then small_data
timm          timm's network in a loop as timm's train.py has it: crops from 0.08 on, flips, colour
              jitter 0.4, label smoothing 0.1
timm-strong   the same with RandAugment (rand-m9-mstd0.5-inc1), erasing 0.25, mixup 0.8, CutMix 1
              and drop path 0.1, with which timm trains networks like this one
lightly       LightlyTrain's pre-training by SimCLR, then the loop of the arm timm

Every arm gets the same minutes, of which a pre-training takes half: CPU time of one process with
one thread, counted from the first step. All have AdamW with a decay of 0.05, batches of 64 images
of the same size, an average of the weights, and a cosine that ends with the time. Each tries the
same learning rates, in a third of the time, on nine tenths of the training images; the other tenth
chooses (pre-trainings see its images, too, without labels). Then there is a run on all training
images for each seed, whose averaged weights are measured on test, once. LightlyTrain has no limit
by CPU time: its epochs follow from the pace of two short runs of it, which are not counted.

OUT gets the images and the runs, and for each set figures.json and table.md. Finished runs are
kept, so the program may be stopped and started again; a run that was halted starts over. The arms
timm need timm. The arm lightly runs if --lightly names the folder that LightlyTrain (AGPL) was
installed into. It is called by its documented functions, without its events:

    pip install --target FOLDER lightly-train
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from equal_time import (
    EMA_DECAY,
    RATES,
    WARMUP,
    Jobs,
    Spent,
    TimeUsed,
    compare,
    comparison_parser,
    table,
    train_ours,
    write_figures,
    write_result,
)
from PIL import Image
from studies import hold_out_a_tenth, link_image
from torch import Tensor, nn
from unknown import make_sets

import convnextv2
from convnextv2.machine import peak_memory
from convnextv2.weights.build import count_parameters
from convnextv2.weights.opened import open_weights

ARMS = {
    "ours": "convnextv2, small_data",
    "fcmae": "convnextv2, FCMAE first",
    "timm": "timm, train.py's augmentation",
    "timm-strong": "timm, RandAugment, mixup, CutMix",
    "lightly": "LightlyTrain's SimCLR first, then timm",
}
PRETRAINED = {"fcmae": 0.5, "lightly": 0.5}
"""The arms that pre-train, and the share of their time that this takes."""
TUNING = 1 / 3
"""The share of a run's time that a run with another learning rate takes."""
BATCH = 64
MODEL = "convnextv2_atto"
UNITS = 1000
"""The time of a training, as timm's scheduler counts it."""
COLUMNS = {"top1": "top-1", "balanced": "balanced accuracy"}


def classes_of(data: Path) -> list[str]:
    """List the classes of the training images."""
    return sorted(folder.name for folder in (data / "train").iterdir())


def images_of(data: Path, split: str) -> list[Path]:
    """List the images of a split. Their folders are their classes."""
    return sorted(path for folder in (data / split).iterdir() for path in folder.iterdir())


def score(images: Sequence[Path], predicted: Sequence[str]) -> dict[str, float]:
    """Compare predicted classes with the folders of images.

    Returns:
        `top1`, and `balanced`: the mean of the classes' shares of right images.
    """
    true = np.array([path.parent.name for path in images])
    right = true == np.array(predicted)
    shares = [right[true == each].mean() for each in np.unique(true)]
    return {"top1": float(right.mean()), "balanced": float(np.mean(shares))}


def train_own(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train a network of ours, and measure it."""
    data, run = Path(job["data"]), folder / "run"
    spent = train_ours(
        "train",
        run,
        job["seconds"],
        config="small_data",
        data_dir=str(data),
        image_size=job["size"],
        batch_size=min(BATCH, job["images"]),
        lr_batch_size=BATCH,
        lr=job["lr"],
        init=job["init"],
        seed=job["seed"],
        precision="float32",
    )
    opened = open_weights(run / "last" / "model.safetensors")
    result = {"spent": asdict(spent), "parameters": count_parameters(opened.description)}
    images = images_of(data, job["split"])
    with contextlib.redirect_stdout(io.StringIO()):
        answers = convnextv2.predict(
            run / "last", images, top_k=1, device="cpu", precision="float32", workers=0
        )
    found = {Path(each["image"]): each["predictions"][0]["class"] for each in answers}
    return {**result, "scores": score(images, [found[path] for path in images])}


def pretrain_own(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Pre-train by FCMAE on the training images."""
    spent = train_ours(
        "pretrain",
        folder / "run",
        job["seconds"],
        config="fcmae_small_data",
        data_dir=job["data"],  # of which it takes the split train
        image_size=job["size"],
        batch_size=min(BATCH, job["images"]),
        lr_batch_size=BATCH,
        seed=job["seed"],
        precision="float32",
        health_every_epochs=1_000_000,
    )
    return {"spent": asdict(spent), "weights": str(folder / "run")}


class Folder:
    """Images of a split, transformed as timm does.

    Args:
        images: The images.
        names: The classes.
        transform: timm's transform of an image.
    """

    def __init__(self, images: Sequence[Path], names: Sequence[str], transform: Any) -> None:
        self._images, self._transform = images, transform
        self._targets = {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self._images[index]
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        target = self._targets.get(path.parent.name, -1)
        while True:
            try:
                return self._transform(image), target
            except ValueError:
                # RandAugment of some versions of timm asks Pillow for 0 bits now and then, which
                # Pillow 13 refuses.
                if not any("RandAugment" in str(each) for each in self._transform.transforms):
                    raise


def endless(images: Folder, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever, each image once in a pass. Partial batches are dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(images), generator=generator).tolist()
        for start in range(0, len(order) - batch + 1, batch):
            pixels, targets = zip(*(images[i] for i in order[start : start + batch]), strict=True)
            yield torch.stack(pixels), torch.tensor(targets)


def build_timm(init: str, classes: int, *, drop_path: float) -> nn.Module:
    """Build timm's network with random weights, or with those of a file but for the classifier."""
    import timm

    if not init:
        return timm.create_model(MODEL, num_classes=classes, drop_path_rate=drop_path)
    model = timm.create_model(MODEL, checkpoint_path=init, drop_path_rate=drop_path)
    model.reset_classifier(classes)
    return model


def train_timm(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train timm's network in a loop like that of timm's train.py, and measure it."""
    from timm.data import Mixup, create_transform, resolve_model_data_config
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3, random_seed

    random_seed(job["seed"])
    data, strong = Path(job["data"]), job["arm"] == "timm-strong"
    names, images = classes_of(data), images_of(data, "train")
    model = build_timm(job["init"], len(names), drop_path=0.1 if strong else 0.0)
    config = resolve_model_data_config(model, {"img_size": job["size"]})
    how = {key: config[key] for key in ("input_size", "mean", "std")}
    added = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
    transform = create_transform(
        **how, is_training=True, interpolation="random", color_jitter=0.4,
        **(added if strong else {}),
    )  # fmt: skip
    batch = min(BATCH, len(images) // 2 * 2)  # mixup pairs images
    mixup = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=len(names)) if strong else None
    loss_of = SoftTargetCrossEntropy() if strong else LabelSmoothingCrossEntropy(0.1)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=job["lr"], weight_decay=0.05)
    schedule = CosineLRScheduler(
        optimizer, t_initial=UNITS, warmup_t=round(WARMUP * UNITS), warmup_lr_init=1e-5,
        warmup_prefix=True, t_in_epochs=False,
    )  # fmt: skip
    average = ModelEmaV3(model, decay=EMA_DECAY, use_warmup=True)
    used, steps, diverged = TimeUsed(job["seconds"]), 0, False
    model.train()
    for pixels, targets in endless(Folder(images, names, transform), batch, job["seed"]):
        if (share := used.share) >= 1:
            break
        # With a prefix, the cosine begins after the warm-up, and ends that much later.
        schedule.step_update(round(share * (1 + WARMUP) * UNITS))
        if mixup is not None:
            pixels, targets = mixup(pixels, targets)
        loss = loss_of(model(pixels), targets)
        if not math.isfinite(loss.item()):
            diverged = True
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        average.update(model, step=steps)
    memory = peak_memory(os.getpid()) >> 20
    spent = Spent(used.taken_s, steps, steps / (len(images) // batch), memory, diverged)
    parameters = sum(each.numel() for each in model.parameters())
    result = {"spent": asdict(spent), "parameters": parameters}
    torch.save(average.module.state_dict(), folder / "averaged.pt")
    measured = images_of(data, job["split"])
    evaluated = create_transform(
        **how, interpolation=config["interpolation"], crop_pct=config["crop_pct"]
    )
    found = classify(average.module, Folder(measured, names, evaluated), names)
    return {**result, "scores": score(measured, found)}


@torch.inference_mode()
def classify(model: nn.Module, images: Folder, names: Sequence[str]) -> list[str]:
    """Name the most probable class of each image."""
    model.eval()
    found: list[str] = []
    for start in range(0, len(images), BATCH):
        end = min(len(images), start + BATCH)
        logits = model(torch.stack([images[i][0] for i in range(start, end)]))
        found += [names[i] for i in logits.argmax(1).tolist()]
    return found


def pretrain_lightly(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Pre-train timm's network by LightlyTrain, for the epochs that fit into the time."""
    os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
    sys.path.append(job["lightly"])  # behind the packages that everyone else uses
    import lightly_train
    import timm

    def run(name: str, epochs: int) -> float:
        model, began = timm.create_model(MODEL), time.process_time()
        lightly_train.pretrain(
            out=folder / name,
            data=Path(job["data"]) / "train",
            model=model,
            method="simclr",
            epochs=epochs,
            batch_size=min(2 * BATCH, job["images"]),
            num_workers=0,
            accelerator="cpu",
            devices=1,
            precision="32-true",
            seed=job["seed"],
            transform_args={"image_size": (job["size"], job["size"])},
        )
        return time.process_time() - began

    first, second = run("pace-1", 1), run("pace-2", 2)
    # The time that a run takes beside its epochs hides the pace of very short runs.
    epoch_s = max(second - first, first / 10)
    epochs = max(1, int(job["seconds"] / epoch_s))
    run("run", epochs)
    steps = epochs * (job["images"] // min(2 * BATCH, job["images"]))
    spent = Spent(epochs * epoch_s, steps, epochs, peak_memory(os.getpid()) >> 20)
    weights = folder / "run" / "exported_models" / "exported_last.pt"
    return {"spent": asdict(spent), "weights": str(weights)}


def work(folder: Path) -> None:
    """Do the job that a folder describes, in this process."""
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    if job["kind"] == "pretrain":
        found = (pretrain_lightly if job["arm"] == "lightly" else pretrain_own)(folder, job)
    else:
        found = (train_own if job["arm"] in ("ours", "fcmae") else train_timm)(folder, job)
        if found["spent"]["diverged"]:
            found["scores"] = dict.fromkeys(COLUMNS, 0.0)
    write_result(folder, found)


class Study:
    """The arms of all sets.

    Args:
        arguments: The arguments of the program.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out = arguments, arguments.out
        self.out.mkdir(parents=True, exist_ok=True)
        make_sets(arguments.data, self.out)
        self.data: dict[str, dict[bool, Path]] = {}
        for name in arguments.sets:
            full = self.out / name
            if arguments.images:
                full = first_images(full, self.out / f"{name}-first", arguments.images)
            tuning = hold_out_a_tenth(full, self.out / f"{full.name}-tuning")
            self.data[name] = {True: full, False: tuning}

    def score(self, _name: str) -> str:
        """Return the figure that chooses the learning rate."""
        return "top1"

    def _folder(self, name: str, *parts: object) -> Path:
        return Path(self.out, f"runs-{name}", "-".join(map(str, parts)))

    def _job(self, name: str, arm: str, seed: int, *, final: bool) -> dict[str, Any]:
        data = self.data[name][final]
        return {
            "arm": arm,
            "seed": seed,
            "size": self.arguments.image_size,
            "data": str(data),
            "images": len(images_of(data, "train")),
        }

    def pretraining(self, name: str, arm: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """Return folder and job of an arm's pre-training; None without one."""
        if arm not in PRETRAINED:
            return None
        return self._folder(name, "pre", arm, seed), {
            "kind": "pretrain",
            **self._job(name, arm, seed, final=True),
            "seconds": 60 * self.arguments.minutes * PRETRAINED[arm],
            **({"lightly": self.arguments.lightly} if arm == "lightly" else {}),
        }

    def training(
        self, name: str, arm: str, seed: int, rate: float, *, final: bool
    ) -> tuple[Path, dict[str, Any]]:
        """Return folder and job of a training: a final one, or one that tries a rate."""
        before = self._folder(name, "pre", arm, seed)
        init = {
            "fcmae": str(before / "run"),
            "lightly": str(before / "run" / "exported_models" / "exported_last.pt"),
        }.get(arm, "")
        left = 1 - PRETRAINED.get(arm, 0.0)
        which = f"seed-{seed}" if final else f"lr-{rate:g}"
        return self._folder(name, arm, which), {
            "kind": "train",
            **self._job(name, arm, seed, final=final),
            "split": "test" if final else "val",
            "seconds": 60 * self.arguments.minutes * left * (1 if final else TUNING),
            "lr": rate,
            "init": init,
        }


def first_images(data: Path, out: Path, most: int) -> Path:
    """Link the first images of each class and split."""
    for folder in sorted(data.glob("*/*")):
        for path in sorted(folder.iterdir())[:most]:
            link_image(path, out / folder.relative_to(data) / path.name)
    return out


def main() -> None:
    """Run what is asked for, and write the figures."""
    parser = comparison_parser(__doc__, minutes=20)
    sets = ("clothing", "cells", "garments")
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets)
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="[all that can be run]")
    parser.add_argument("--image_size", type=int, default=64, help="in px [64]")
    parser.add_argument("--lightly", type=Path, help="folder with LightlyTrain")
    parser.add_argument("--images", type=int, help="images of a class, to try the program")
    arguments = parser.parse_args()
    if arguments.lightly:
        arguments.lightly = str(arguments.lightly.resolve())
    if not arguments.arms:
        arguments.arms = [arm for arm in ARMS if arm != "lightly" or arguments.lightly]
    if "lightly" in arguments.arms and not arguments.lightly:
        parser.error("--lightly: the arm lightly needs the folder that LightlyTrain is in.")
    if arguments.minutes <= 0:
        parser.error(f"--minutes {arguments.minutes}: expected a number above 0.")
    for name in ("clothing", "bccd", "clothing_parsing"):
        if not (arguments.data / name).is_dir():
            parser.error(f"{arguments.data}: has no folder {name}, from which sets are made.")
    arguments.out = arguments.out.resolve()
    figures = compare(
        Study(arguments),
        Jobs(Path(__file__).resolve(), arguments.jobs),
        arms=dict.fromkeys(arguments.sets, arguments.arms),
        rates=RATES[: arguments.tries],
        seeds=arguments.seeds,
    )
    for name, arms in figures.items():
        text = table(arms, ARMS, COLUMNS)
        write_figures(arguments.out / f"runs-{name}", arms, text)
        print(f"### {name}\n\n{text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        work(Path(sys.argv[2]))
    else:
        main()
