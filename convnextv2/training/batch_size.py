"""Find the batch size that fits into memory.

A step takes `global_batch` images, which is batch_size x accumulate x ranks. What is learned
depends on the global batch. How it is cut into batches is only a matter of memory. So the batch
size may be searched for while the global batch is kept.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.workers import PREFETCH, resolve_workers
from convnextv2.device import available_memory, choose_precision
from convnextv2.distributed import Place
from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.text import counted
from convnextv2.training.memory import largest_batch_by_estimate, memory_notes, out_of_memory
from convnextv2.training.optim import build_optimizer

_SPARE = 0.1
"""Share of the free memory that is kept free while a batch is tried, as not all of it is usable."""


def settle_batch(
    recipe: Recipe,
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    place: Place,
    depths: Sequence[int] = (),
    *,
    images: int | None = None,
) -> Recipe:
    """Decide how many images go through the network at once, and warn if they may not fit.

    Args:
        recipe: The recipe as the user gave it.
        model: The model that is trained, on any device. It is not changed.
        forward: See `resolve_batch`.
        place: This rank.
        depths: Blocks in each stage of the encoder, for layer decay.
        images: The number of training images; see `resolve_batch`.

    Returns:
        The recipe with batch_size and accumulate as numbers.
    """
    precision = choose_precision(recipe.precision, place.device)
    settled = resolve_batch(
        recipe, model, forward, precision=precision, place=place, depths=depths, images=images
    )
    if recipe.batch_size != "auto" and place.is_main:  # only the main rank prints
        for line in memory_notes(
            model,
            forward,
            batch_size=settled.images_per_batch(),
            averaged=settled.ema,
            precision=precision,
            place=place,
            shards=place.world_size if settled.shard else 1,
        ):
            say(line)
    return settled


def resolve_batch(
    recipe: Recipe,
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    *,
    precision: torch.dtype,
    place: Place,
    depths: Sequence[int] = (),
    images: int | None = None,
) -> Recipe:
    """Replace batch_size auto by a number, and derive accumulate from global_batch.

    All ranks must call this function together. They all get the same numbers, which are printed.

    Args:
        recipe: The recipe as the user gave it.
        model: The model that is trained, on any device. It is not changed.
        forward: Takes a copy of the model and a number of images, runs the copy on its device as
            training does, and returns a scalar.
        precision: The precision of the forward pass.
        place: This rank.
        depths: Blocks in each stage of the encoder, if layer decay applies.
        images: The number of training images, if it is known. A step that would take more takes
            as many as there are, unless the user set `global_batch`.

    Returns:
        The recipe with batch_size and accumulate as numbers.

    Raises:
        RecipeError: The knobs contradict each other, or not even one image fits.
    """
    ranks = place.world_size
    if recipe.batch_size != "auto":
        return with_accumulate(recipe, recipe.batch_size, ranks)
    wanted = recipe.global_batch
    if wanted and recipe.accumulate != 1 and not recipe.resume:
        raise RecipeError(
            f"accumulate = {recipe.accumulate}: with batch_size auto it follows from global_batch "
            f"({wanted}). Leave one of the two out."
        )
    global_batch = wanted or recipe.images_per_batch() * recipe.accumulate * ranks
    if images is not None and wanted is None and recipe.drop_last and not recipe.elastic:
        share = images // ranks * ranks
        global_batch = min(global_batch, share) if share else global_batch
    sizes = _divisors(_per_rank(global_batch, ranks))
    fits = place.min(_fits(recipe, model, forward, precision, place, depths, sizes))
    batch_size, accumulate = fit_batch(global_batch, ranks, fits)
    say(
        f"batch_size auto: {batch_size}, and accumulate {accumulate}, on "
        f"{counted(ranks, 'rank(s)')}: {global_batch} images in a step."
    )
    return recipe.model_copy(update={"batch_size": batch_size, "accumulate": accumulate})


def fit_batch(global_batch: int, ranks: int, fits: int) -> tuple[int, int]:
    """Cut a global batch into batches that fit.

    Args:
        global_batch: Images in one step, over all ranks.
        ranks: The number of ranks that share it.
        fits: The largest number of images that a rank can take at once.

    Returns:
        The largest batch_size that fits, and the matching accumulate. Their product with `ranks` is
        `global_batch`.

    Raises:
        RecipeError: The ranks cannot share the global batch evenly, or not one image fits.
    """
    each = _per_rank(global_batch, ranks)
    if fits < 1:
        raise RecipeError(
            "batch_size = auto: not even one image fits into the memory that is free. Use a "
            "smaller model or image_size, grad_checkpoint: True, or another device."
        )
    batch_size = max(size for size in _divisors(each) if size <= fits)
    return batch_size, each // batch_size


def largest_batch(
    try_step: Callable[[int], None],
    sizes: Sequence[int],
    *,
    empty: Callable[[], None] = torch.accelerator.empty_cache,
) -> int:
    """Find the largest batch that fits by trying.

    Large batches take long, so small ones are tried first: the size is doubled until one does not
    fit. Bisection then finds the largest size between the last two.

    Args:
        try_step: Runs a training step with a given number of images. If they do not fit, it raises
            an error for which `out_of_memory` is true. Any other error is raised again.
        sizes: The batch sizes that may be used, ascending.
        empty: Releases the memory that the allocator of the device keeps. It is called after each
            attempt.

    Returns:
        The largest of `sizes` that fits, or 0 if none does.
    """

    def fits(size: int) -> bool:
        try:
            try_step(size)
            return True
        except Exception as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            empty()

    known_to_fit, may_fit = 0, len(sizes)  # sizes[:known_to_fit] fit, and sizes[may_fit:] do not
    doubled = 0
    while doubled < may_fit:
        if fits(sizes[doubled]):
            known_to_fit = doubled + 1
            doubled = bisect_left(sizes, 2 * sizes[doubled])
        else:
            may_fit = doubled
    while known_to_fit < may_fit:
        middle = (known_to_fit + may_fit - 1) // 2
        if fits(sizes[middle]):
            known_to_fit = middle + 1
        else:
            may_fit = middle
    return sizes[known_to_fit - 1] if known_to_fit else 0


def with_accumulate(recipe: Recipe, batch_size: int, ranks: int) -> Recipe:
    """Derive accumulate from global_batch, if that is given.

    Args:
        recipe: The recipe.
        batch_size: Images in a batch of one rank.
        ranks: The number of ranks.

    Raises:
        RecipeError: They cannot share the global batch, or accumulate contradicts it.
    """
    if recipe.global_batch is None:
        return recipe
    share = batch_size * ranks
    accumulate, rest = divmod(recipe.global_batch, share)
    if rest or not accumulate:
        raise RecipeError(
            f"global_batch = {recipe.global_batch}: expected a multiple of batch_size x ranks "
            f"({batch_size} x {ranks} = {share}). Use {share * max(1, accumulate)}, or "
            "batch_size auto."
        )
    if recipe.accumulate not in (1, accumulate) and not recipe.resume:
        raise RecipeError(
            f"accumulate = {recipe.accumulate}: with batch_size {batch_size} on "
            f"{counted(ranks, 'rank(s)')}, global_batch = {recipe.global_batch} needs "
            f"{accumulate}. Leave accumulate or global_batch out."
        )
    if accumulate != recipe.accumulate:
        say(f"accumulate {accumulate}, for a global_batch of {recipe.global_batch}.")
    return recipe.model_copy(update={"accumulate": accumulate})


def _per_rank(global_batch: int, ranks: int) -> int:
    each, rest = divmod(global_batch, ranks)
    if rest or not each:
        raise RecipeError(
            f"global_batch = {global_batch}: cannot be shared evenly by {ranks} ranks. Use "
            f"{max(1, each) * ranks}, or another number of ranks."
        )
    return each


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _fits(
    recipe: Recipe,
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    precision: torch.dtype,
    place: Place,
    depths: Sequence[int],
    sizes: Sequence[int],
) -> int:
    """Find how many images this rank can take at once, up to the largest of `sizes`."""
    if place.device.type == "cpu":  # running out of its memory would harm the whole machine
        fits = largest_batch_by_estimate(
            model, forward, averaged=recipe.ema, precision=precision, place=place,
            extra_per_image=_bytes_in_loader(recipe, place),
        )  # fmt: skip
        return sizes[-1] if fits is None else min(fits, sizes[-1])
    return largest_batch(_trial(recipe, model, forward, precision, place, depths), sizes)


def _bytes_in_loader(recipe: Recipe, place: Place) -> int:
    """Compute how many bytes of pixels wait in the loader for each image of a batch."""
    height, width = recipe.height_and_width()
    batches = resolve_workers(recipe.workers, place.local_world_size)[0] * PREFETCH + 1
    return batches * max(1, recipe.aug_splits) * recipe.in_channels * height * width


def _trial(
    recipe: Recipe,
    model: nn.Module,
    forward: Callable[[nn.Module, int], Tensor],
    precision: torch.dtype,
    place: Place,
    depths: Sequence[int],
) -> Callable[[int], None]:
    """Make a function that tries a training step on a copy of the model, on this rank's device."""

    def try_step(images: int) -> None:
        free = available_memory(place.device) or 0
        held = [torch.empty(int(_SPARE * free), dtype=torch.uint8, device=place.device)]
        trained = copy.deepcopy(model).to(place.device).train()
        if recipe.ema:
            held += [torch.empty_like(parameter) for parameter in trained.parameters()]
        optimizer = build_optimizer(recipe, trained, depths)
        for _ in range(2):  # the optimizer's state is there from the first step on
            with place.autocast(precision):
                loss = forward(trained, images)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.accelerator.synchronize(place.device)

    return try_step
