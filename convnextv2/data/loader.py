"""Loader: batches of prepared pixels, from this process or from workers; the same ones either way.

What a worker cannot read comes back as a value and is judged in the main process, so that a bad file is one line with its name,
not a traceback out of a worker.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convnextv2.data.cache import DecodedCache, affordable
from convnextv2.data.chance import stream
from convnextv2.data.decode import Picture
from convnextv2.data.sampler import EpochSampler, Position, exact_positions
from convnextv2.data.source import Source
from convnextv2.data.transforms import EvalTransform, TrainTransform, build_eval_transform, build_train_transform
from convnextv2.distributed import Place, available_cores, say
from convnextv2.errors import DataError, MissingPackageError
from convnextv2.model.kernels import native
from convnextv2.recipe.knobs import Recipe

MOST_WORKERS = 16
"""How many `workers: auto` starts at most; beyond that, memory and disks give out before the cores do."""
PREFETCH = 2
"""Batches that each worker has on the way, in shared memory."""


class Batch(NamedTuple):
    """pixels: uint8 (N, C, H, W), channels-last in memory. targets: int64 (N,), class indices, -1 where there is no label.
    indices: int64 (N,), into the source. Where the transform makes several versions of each image, the first version of all
    comes first, and targets and indices are repeated."""

    pixels: Tensor
    targets: Tensor
    indices: Tensor


class TrainingLoader:
    """A rank's training batches. One worker or many, and starting in the middle of an epoch, change nothing in them.

    transform: (pixels, CPU generator) to uint8 (C, H, W) of one size; the generator follows from the sampler's seed and the
    position. bad_images: "fail" raises DataError at the first image that cannot be read; "skip" leaves it out of its batch (and
    leaves out a batch of nothing else, on one rank; several could then no longer keep step, so there it is a DataError) and notes
    its name in `skipped`. cache: of decoded images. The transform then gets whole images, in the cache or not, so that what it
    returns does not depend on what fitted. channels, value_range: see `open_picture`."""

    def __init__(
        self,
        source: Source,
        transform: TrainTransform,
        sampler: EpochSampler,
        *,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        workers: int = 0,
        bad_images: Literal["fail", "skip"] = "fail",
        pin_memory: bool = False,
        cache: DecodedCache | None = None,
    ) -> None:
        self.source, self.sampler, self.bad_images = source, sampler, bad_images
        self.skipped: set[str] = set()
        images = _Images(source, channels, value_range, partial(_augment, transform, sampler.seed), cache)
        self._loader = _data_loader(images, sampler, workers, persistent=True, pin_memory=pin_memory)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.sampler)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number first_batch on. Raises DataError as `bad_images` says."""
        self.sampler.set_epoch(epoch, first_batch)
        for batch, errors in self._loader:
            _judge(errors, self.bad_images, self.source, self.skipped)
            if len(batch.indices):
                yield batch
            elif self.sampler.world_size > 1:
                raise DataError(f"{next(iter(errors.values()))} No other image of its batch could be read. Remove the bad files.")


class EvaluationLoader:
    """A rank's share of the images, each exactly once over all ranks, in order. Iterate it for batches.

    bad_images: as for training; `skipped` has the names of those left out."""

    def __init__(
        self,
        source: Source,
        transform: EvalTransform,
        *,
        batch_size: int,
        channels: int = 3,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        bad_images: Literal["fail", "skip"] = "fail",
        pin_memory: bool = False,
    ) -> None:
        self.source, self.bad_images = source, bad_images
        self.skipped: set[str] = set()
        positions = exact_positions(len(source), rank, world_size)
        batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
        images = _Images(source, channels, transform.value_range, partial(_prepare, transform))
        self._loader = _data_loader(images, batches, min(workers, len(batches)), persistent=False, pin_memory=pin_memory)

    def __len__(self) -> int:
        """Batches, the last one perhaps shorter."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch, errors in self._loader:
            _judge(errors, self.bad_images, self.source, self.skipped)
            if len(batch.indices):
                yield batch


def build_sampler(recipe: Recipe, length: int, place: Place) -> EpochSampler:
    """The order in which this rank takes so many training images, as the recipe says."""
    return EpochSampler(
        length,
        recipe.images_per_batch(),
        seed=recipe.seed,
        rank=place.rank,
        world_size=place.world_size,
        shuffle=recipe.shuffle,
        repeats=recipe.aug_repeats,
        drop_last=recipe.drop_last,
    )


def build_training_loader(recipe: Recipe, source: Source, place: Place) -> TrainingLoader:
    """The training batches of this rank, as the recipe says."""
    sampler = build_sampler(recipe, len(source), place)
    workers, note = resolve_workers(recipe.workers, place.local_world_size)
    # Each worker has PREFETCH batches on the way, and the loop holds one.
    height, width = recipe.image_size if isinstance(recipe.image_size, tuple) else (recipe.image_size, recipe.image_size)
    batch = recipe.images_per_batch() * max(1, recipe.aug_splits) * recipe.in_channels * height * width
    batches = (workers * PREFETCH + 1) * batch if workers else 0
    cache_mb, more = (0, "")
    if recipe.cache_mb:
        cache_mb, more = affordable(recipe.cache_mb, batches=batches, ranks=place.local_world_size)
    for line in filter(None, (note, more)):
        say(line)
    return TrainingLoader(
        source,
        build_train_transform(recipe),
        sampler,
        channels=recipe.in_channels,
        value_range=recipe.value_range,
        workers=workers,
        bad_images=recipe.bad_images,
        pin_memory=place.device.type == "cuda",
        cache=DecodedCache(len(source), cache_mb) if cache_mb and source.arrays is None else None,
    )


def build_evaluation_loader(recipe: Recipe, source: Source, place: Place) -> EvaluationLoader:
    """The evaluation batches of this rank, as the recipe says."""
    return EvaluationLoader(
        source,
        build_eval_transform(recipe),
        batch_size=recipe.images_per_batch(),
        channels=recipe.in_channels,
        workers=resolve_workers(recipe.workers, place.local_world_size)[0],
        rank=place.rank,
        world_size=place.world_size,
        bad_images=recipe.bad_images,
        pin_memory=place.device.type == "cuda",
    )


def resolve_workers(setting: int | Literal["auto"], local_ranks: int = 1) -> tuple[int, str]:
    """Number of worker processes for one of `local_ranks` on this machine, and a line to announce where it is not what was asked
    for.

    auto: this rank's share of the cores less one for the rank itself, at most MOST_WORKERS. More than its share is clamped to
    it."""
    share = max(1, available_cores() // local_ranks)
    if setting == "auto":
        return min(share - 1, MOST_WORKERS), ""
    if setting > share:
        return share, f"workers = {setting}: more than the {share} core(s) of this rank; {share} used."
    return setting, ""


def _augment(transform: TrainTransform, seed: int, image: Tensor | Picture, position: Position) -> Tensor:
    return transform(image, stream(seed, "image", *position))


def _prepare(transform: EvalTransform, image: Tensor | Picture, position: Position) -> Tensor:
    return transform(image.decode() if isinstance(image, Picture) else image)


_Item = Tensor | str | MissingPackageError
"""Prepared pixels, or why there are none: of the file, or of what is installed here."""


class _Images(Dataset[tuple[int, _Item]]):
    """Position to (index, prepared pixels or why there are none)."""

    def __init__(
        self,
        source: Source,
        channels: int,
        value_range: tuple[float, float] | None,
        prepare: Callable[[Tensor | Picture, Position], Tensor],
        cache: DecodedCache | None = None,
    ) -> None:
        self.source, self.channels, self.value_range, self.prepare, self.cache = source, channels, value_range, prepare, cache

    def __getitem__(self, position: Position) -> tuple[int, _Item]:
        try:
            return position.index, self.prepare(self._image(position.index), position)
        except DataError as error:
            return position.index, str(error)
        except MissingPackageError as error:
            return position.index, error

    def _image(self, index: int) -> Tensor | Picture:
        if self.cache is None:
            return self.source.picture(index, self.channels, self.value_range)
        pixels = self.cache.get(index)
        if pixels is None:
            pixels = self.source.pixels(index, self.channels, self.value_range)
            self.cache.put(index, pixels)
        return pixels


def _collate(
    targets: np.ndarray[Any, Any] | None, items: Sequence[tuple[int, _Item]]
) -> tuple[Batch, dict[int, str | MissingPackageError]]:
    good = [(index, pixels) for index, pixels in items if isinstance(pixels, Tensor)]
    indices = torch.tensor([index for index, _ in good], dtype=torch.int64)
    # Stacked channels-last, as the images lie in memory and as the network reads them.
    pixels = torch.stack([pixels.movedim(-3, -1) for _, pixels in good]) if good else torch.empty(0, dtype=torch.uint8)
    if pixels.dim() == 5:
        indices = indices.repeat(pixels.shape[1])
        pixels = pixels.transpose(0, 1).flatten(0, 1)
    pixels = pixels.permute(0, 3, 1, 2) if good else pixels
    known = torch.full_like(indices, -1) if targets is None else torch.from_numpy(targets[indices.numpy()].astype(np.int64))
    return Batch(pixels, known, indices), {index: error for index, error in items if not isinstance(error, Tensor)}


def _judge(
    errors: dict[int, str | MissingPackageError], bad_images: str, source: Source, skipped: set[str]
) -> None:
    for error in errors.values():
        if isinstance(error, MissingPackageError):  # no fault of the image, so it is never skipped
            raise error
    if errors and bad_images == "fail":
        raise DataError(f"{next(iter(errors.values()))} Remove the file, or set bad_images = skip.")
    skipped.update(source.names[index] for index in errors)


def _start_worker(kernels: native.Choice, worker: int) -> None:
    # torchrun, SLURM, systemd and GNU timeout send SIGTERM to all processes of a job. A worker that
    # died of it would fail the rank, which has to save first. Workers end when their rank does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Only a forked worker inherits the choice. "auto" is what it begins with, and nothing has to be compiled for it here.
    if kernels == "plain":
        native.choose("plain")


def _data_loader(
    images: _Images, batches: Iterable[list[Position]], workers: int, *, persistent: bool, pin_memory: bool
) -> DataLoader[tuple[Batch, dict[int, str | MissingPackageError]]]:
    return DataLoader(
        images,  # type: ignore[arg-type]  # what comes out is what _collate returns, not what the data set does
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate, images.source.targets),
        prefetch_factor=PREFETCH if workers else None,
        persistent_workers=persistent and workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=partial(_start_worker, native.chosen()),
        generator=stream("loader"),  # without one, each pass draws from torch's global generator
    )
