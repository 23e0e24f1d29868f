"""Reads images into batches, handles images that fail, and waits for files that are out of reach.

A worker returns the reason for a failure as a value, and the main process decides what to do. For a
bad file, the user therefore gets one line with its name instead of a worker's traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from convnextv2.data.batch import Batch, Collate, Item, Prepared, join
from convnextv2.data.cache import DecodedCache
from convnextv2.data.decode import Picture
from convnextv2.data.dense.source import AnnotatedSource, Sample
from convnextv2.data.left_out import LeftOut
from convnextv2.data.sampler import Position
from convnextv2.data.source import Source
from convnextv2.data.storage import StorageWait
from convnextv2.data.workers import Rest, Workers
from convnextv2.errors import DataError, MissingPackageError, StorageError


class Images(Dataset[Item]):
    """Maps a `Position` to an `Item`: an index, and prepared pixels or the reason for a failure.

    If the source has annotations, `prepare` also gets the annotation of the image.
    """

    def __init__(
        self,
        source: Source,
        channels: int,
        value_range: tuple[float, float] | None,
        prepare: Callable[..., Tensor | Sample],
        cache: DecodedCache | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self.source, self.channels, self.value_range, self.prepare = (
            source,
            channels,
            value_range,
            prepare,
        )
        self.cache, self.whole = cache, whole

    def __getitem__(self, position: Position) -> Item:
        try:
            annotation = (
                (self.source.annotation(position.index),)
                if isinstance(self.source, AnnotatedSource)
                else ()
            )
            image = self._image(position.index)
            return position.index, self.prepare(image, position, *annotation)
        except (MissingPackageError, StorageError) as error:
            return position.index, error
        except DataError as error:
            return position.index, str(error)

    def _image(self, index: int) -> Tensor | Picture:
        if not self.whole:
            return self.source.picture(index, self.channels, self.value_range)
        pixels = self.cache.get(index) if self.cache else None
        if pixels is None:
            pixels = self.source.pixels(index, self.channels, self.value_range)
            if self.cache:
                self.cache.put(index, pixels)
        return pixels


class Reader:
    """Prepares batches for both loaders, and handles images that fail or are out of reach."""

    def __init__(
        self,
        images: Images,
        shape: tuple[int, int, int],
        workers: int,
        left_out: LeftOut,
        storage_wait: StorageWait,
        *,
        persistent: bool,
        pin_memory: bool,
        collate: Collate | None = None,
    ) -> None:
        self.images, self.left_out, self.storage_wait = images, left_out, storage_wait
        self.workers: Workers[Item, Prepared] = Workers(
            images,
            partial(join, images.source.targets, shape, collate),
            workers,
            names=images.source.names,
            persistent=persistent,
            pin_memory=pin_memory,
            after_death=images.cache.renew_lock if images.cache else lambda: None,
        )

    def read(self, rest: Rest) -> Iterator[Batch]:
        """Prepare the batches of `rest`; see `Workers.run`.

        A batch is empty if none of its images can be read.
        """
        self.left_out.refresh()
        done = 0
        while True:
            prepared = self.workers.run(partial(self._rest, rest, done))
            for batch, failures in prepared:
                out_of_reach = {
                    index: why for index, why in failures.items() if isinstance(why, StorageError)
                }
                if out_of_reach:
                    break
                self.storage_wait.over()
                self.left_out.judge(failures)
                yield self._without_listed(batch)
                done += 1
            else:
                return
            index, why = next(iter(out_of_reach.items()))
            self.storage_wait.wait(why, partial(self._is_back, index))

    def _is_back(self, index: int) -> bool:
        return not self.images.source.is_out_of_reach(index)

    def _rest(self, rest: Rest, done: int, more: int) -> Iterator[list[Position]]:
        return map(self.left_out.without_listed, rest(done + more))

    def _without_listed(self, batch: Batch) -> Batch:
        """Return the batch without images that were listed as bad while it was prepared."""
        listed = [self.left_out.is_listed(index) for index in batch.indices.tolist()]
        if not any(listed):
            return batch
        keep = ~torch.tensor(listed)
        # The selection is made in the memory layout of the pixels, channels-last.
        pixels = batch.pixels.permute(0, 2, 3, 1)[keep].permute(0, 3, 1, 2)
        targets = (
            batch.targets[keep]
            if isinstance(batch.targets, Tensor)
            else [target for target, out in zip(batch.targets, listed, strict=True) if not out]
        )
        return Batch(pixels, targets, batch.indices[keep])
