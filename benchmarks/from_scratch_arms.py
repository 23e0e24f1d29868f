"""Trains or pre-trains the network of each arm of from_scratch_peers.py, and measures it.

Each function that trains takes the folder of a job and its content, and returns the result.
"""

from __future__ import annotations

import contextlib
import io
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
from equal_time import EMA_DECAY, WARMUP, Spent, TimeUsed, pretrain_ours, train_ours
from PIL import Image
from torch import Tensor, nn

import convnextv2
from convnextv2.machine import peak_memory
from convnextv2.weights.build import count_parameters
from convnextv2.weights.opened import open_weights

BATCH = 64
MODEL = "convnextv2_atto"
UNITS = 1000
"""The time of a training, as timm's scheduler counts it."""


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
    data = Path(job["data"])  # FCMAE takes its split train
    spent = pretrain_ours(folder / "run", data, job)
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
