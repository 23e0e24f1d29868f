"""Warm up models, so that the first requests are not slow."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from time import perf_counter

import torch
from torch import Tensor

from convnextv2.data.transforms import EvalTransform
from convnextv2.inference.reconstructor import Reconstructor
from convnextv2.inference.scorer import Scorer
from convnextv2.server.dense_model import DenseModel

_LARGEST_S = 0.2
"""The maximum seconds for the largest batch of a warm-up.

Requests for other models, and for the old version of this one, have to wait for it."""


async def warm_up(scorer: Scorer, model_thread: Executor, max_batch: int) -> tuple[int, float]:
    """Score ever larger batches of grey images, until one takes as long as requests may wait.

    Between two batches, the model thread can score images for other models.

    Args:
        scorer: The model.
        model_thread: The thread in which models compute.
        max_batch: The largest batch.

    Returns:
        The number of images of the last batch, and the seconds that it took.
    """
    loop, images, is_first = asyncio.get_running_loop(), 1, True
    while True:
        began = perf_counter()
        await loop.run_in_executor(model_thread, scorer, _grey(scorer.transform, images))
        seconds = perf_counter() - began
        if is_first:  # the first batch includes setting up engines and kernels
            is_first = False
        elif images == max_batch or 2 * seconds > _LARGEST_S:
            return images, seconds
        else:
            images = min(2 * images, max_batch)


async def warm_up_pretrained(model: Reconstructor, model_thread: Executor) -> None:
    """Reconstruct one grey image.

    Args:
        model: The model.
        model_thread: The thread in which models compute.
    """
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(model_thread, model, _grey(model.transform, 1)[0], 0.6, 0)


async def warm_up_dense(model: DenseModel, model_thread: Executor) -> float:
    """Answer for a grey image twice. The first time includes setting up the engine.

    Args:
        model: The model.
        model_thread: The thread in which models compute.

    Returns:
        The seconds that the second time took.
    """
    loop, began = asyncio.get_running_loop(), 0.0
    for _ in range(2):
        began = perf_counter()
        await loop.run_in_executor(model_thread, model.warm_up)
    return perf_counter() - began


def _grey(transform: EvalTransform, images: int) -> Tensor:
    """Return the pixels of grey images, uint8 (images, C, H, W)."""
    return torch.full(
        (images, transform.preprocessing.channels, *transform.preprocessing.image_size),
        128,
        dtype=torch.uint8,
    )
