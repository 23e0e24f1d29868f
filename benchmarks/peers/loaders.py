"""Passes over 512 files with two workers in batches of 64, beside timm.

Training has RandAugment and erasing; evaluation has resize and crop. The policy has no `mstd`:
where a magnitude reaches 10, timm posterizes to no bit at all, which Pillow refuses from version 13
on.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from works import SIZE, Group, Work

from convnextv2.data.build_transforms import build_batch_transform
from convnextv2.data.folders import image_folder
from convnextv2.data.loader import (
    TrainingLoader,
    build_evaluation_loader,
    build_training_loader,
)
from convnextv2.distributed import Place
from convnextv2.recipe.read import read_recipe

COUNT, BATCH, WORKERS = 512, 64, 2
POLICY, ERASE_PROB = "rand-m9-inc1", 0.25
CPU = torch.device("cpu")


def groups(small: Path, large: Path) -> list[Group]:
    """List the groups of loaders.

    Args:
        small: A folder of files of 500 x 375 px.
        large: A folder of files of 1500 x 1125 px.
    """
    return [
        Group("loader", partial(loaders, small), COUNT, case="500x375"),
        Group("loader", partial(loaders, large), COUNT, case="1500x1125"),
    ]


def loaders(photos: Path) -> dict[str, Work]:
    """Make the passes of both packages over the first files of a folder."""
    settings = {
        "image_size": SIZE,
        "batch_size": BATCH,
        "workers": WORKERS,
        "interpolation": "bicubic",
        "auto_augment": POLICY,
        "erase_prob": ERASE_PROB,
        "num_samples": COUNT,
    }
    recipe, _ = read_recipe(settings)
    source, place = image_folder(photos).subset(range(COUNT)), Place(CPU)
    cached_recipe = recipe.model_copy(update={"cache_mb": 2000})
    cached_source = image_folder(photos).subset(range(COUNT))
    cached = build_training_loader(cached_recipe, cached_source, place)
    training = build_training_loader(recipe, source, place)
    evaluation = build_evaluation_loader(recipe, source, place)
    to_images = build_batch_transform(recipe, 10)
    epochs = count()

    def train(loader: TrainingLoader) -> None:
        for batch in loader.batches(next(epochs)):
            to_images(batch.pixels, batch.targets, torch.Generator())

    def evaluate() -> None:
        for batch in evaluation:
            to_images.normalise(batch.pixels)

    return {
        "timm, training": timm_work(photos, is_training=True),
        "convnextv2, training": partial(train, training),
        "convnextv2, training, cache_mb": partial(train, cached),
        "timm, evaluation": timm_work(photos, is_training=False),
        "convnextv2, evaluation": evaluate,
    }


def timm_work(photos: Path, *, is_training: bool) -> Work:
    """Make a pass of timm's loader over the same files."""
    from timm.data import ImageDataset, create_loader

    data = ImageDataset(str(photos))
    data.reader.samples = data.reader.samples[:COUNT]
    extra: dict[str, Any] = {"crop_pct": 0.875}
    if is_training:
        extra = {"auto_augment": POLICY, "re_prob": ERASE_PROB, "re_mode": "pixel"}
    loader = create_loader(
        data,
        (3, SIZE, SIZE),
        BATCH,
        is_training=is_training,
        interpolation="bicubic",
        num_workers=WORKERS,
        device=CPU,
        persistent_workers=is_training,
        pin_memory=False,
        **extra,
    )
    return lambda: [None for _ in loader]
