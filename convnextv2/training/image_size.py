"""Choose the image size of a run that ends at a given time, for `image_size: auto`.

Small images make short epochs. In a given time, a network therefore sees either few large images or
many small ones. The size chosen here is the largest at which enough epochs fit.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from convnextv2.console import say
from convnextv2.device import choose_precision
from convnextv2.distributed import Place
from convnextv2.durations import duration, read_duration
from convnextv2.recipe.knobs import Recipe

SIZES = (224, 192, 160, 128, 96, 64)
"""The sides that are considered, in pixels: multiples of the total stride of the network."""
MIN_EPOCHS = 20
"""A size is large enough for a run if this many epochs fit."""
_TRAINING_SHARE = 0.85
"""Share of the time that steps take. The start, reading, evaluation and report take the rest."""
_PROBES = (64, 128)
_IMAGES = 32


def settle_image_size(recipe: Recipe, model: nn.Module, images: int, place: Place) -> Recipe:
    """Replace image_size auto by a number, and print it. All ranks get the same one.

    Args:
        recipe: The recipe as the user gave it.
        model: The network that is trained, on any device. It is not changed.
        images: The number of training images.
        place: This rank.

    Returns:
        The recipe with image_size as a number.
    """
    if recipe.image_size != "auto":
        return recipe
    seconds = read_duration(recipe.time)
    pace = measure_pace(model, choose_precision(recipe.precision, place.device), place)

    def epochs_at(size: int) -> int:
        epoch_s = images / place.world_size * pace(size)
        return int(_TRAINING_SHARE * seconds / epoch_s)

    [size] = place.gather(choose_size(epochs_at))[:1]
    larger = [each for each in reversed(SIZES) if each > size][:1]
    say(
        f"image_size auto: {size} px, at which about {epochs_at(size)} epochs fit into "
        f"{duration(seconds)}"
        + "".join(f"; at {each} px, {epochs_at(each)} would" for each in larger)
        + f". At least {MIN_EPOCHS} are wanted."
    )
    return recipe.model_copy(update={"image_size": size})


def choose_size(epochs_at: Callable[[int], int]) -> int:
    """Return the largest of `SIZES` at which enough epochs fit, or else the smallest.

    Args:
        epochs_at: Takes a side in pixels, and returns how many epochs fit.
    """
    return next((size for size in SIZES if epochs_at(size) >= MIN_EPOCHS), SIZES[-1])


def measure_pace(
    model: nn.Module,
    precision: torch.dtype,
    place: Place,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[int], float]:
    """Measure how long a training image takes, by forward and backward passes on blank images.

    Args:
        model: A network that takes images. It is copied, and not changed.
        precision: The precision of the forward pass.
        place: This rank.
        clock: Returns seconds.

    Returns:
        A function that takes a side in pixels, and returns the seconds for an image of that size.
        It is linear in the number of pixels and fits two measured sizes.
    """
    trained = copy.deepcopy(model).to(place.device).train()
    channels = next(p.shape[1] for p in trained.parameters() if p.dim() == 4)
    measured = {}
    with torch.random.fork_rng(devices=[]):  # drop path draws random numbers
        for size in _PROBES:
            blank = torch.zeros(_IMAGES, channels, size, size, device=place.device)
            taken = []
            for _ in range(4):
                began = clock()
                with place.autocast(precision):
                    total = trained(blank).sum()
                total.backward()
                trained.zero_grad(set_to_none=True)
                if place.device.type != "cpu":
                    torch.accelerator.synchronize(place.device)
                taken.append(clock() - began)
            measured[size] = statistics.median(taken[1:]) / _IMAGES  # the first one may compile
    small, large = _PROBES
    by_pixel = max(0.0, measured[large] - measured[small]) / (large**2 - small**2)
    fixed = measured[large] - by_pixel * large**2
    return lambda size: fixed + by_pixel * size**2
