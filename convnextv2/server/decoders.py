"""Decodes the images of requests in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from torch import Tensor

from convnextv2.data.decode import open_picture
from convnextv2.errors import DataError, ImageSizeError, MissingPackageError
from convnextv2.machine import available_cores
from convnextv2.preprocessing import Preprocessing
from convnextv2.server.refusal import Refusal


@dataclass(frozen=True)
class Prepared:
    """An image of a request, ready for the model.

    Attributes:
        pixels: uint8 (C, H, W).
        seen: The part of the image that a classifier sees; see `EvalTransform.seen`.
        size: Height and width of the upright image.
    """

    pixels: Tensor
    seen: tuple[float, float, float, float]
    size: tuple[int, int]


class Transform(Protocol):
    """Prepares images for a model, as `EvalTransform` does."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of images."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Prepare an image, uint8 (C, H, W)."""


class Decoders:
    """Decodes images in threads, and bounds the memory that they take together.

    An object must be used in one event loop only.

    Args:
        max_image_pixels: The largest image that is decoded. Twice as many pixels may be decoded at
            once, over all threads.
        measure: Called from a decoding thread with the seconds that an image took.
    """

    def __init__(self, max_image_pixels: int, measure: Callable[[float], None]) -> None:
        self._max_image_pixels, self._measure = max_image_pixels, measure
        threads = max(2, available_cores())
        self._threads: Executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._free_threads = asyncio.Semaphore(threads)
        self._budget = _Budget(2 * max_image_pixels)

    async def prepare(self, data: bytes, name: str, transform: Transform) -> Prepared:
        """Decode one image and prepare it for a model.

        Args:
            data: The image file.
            name: The image's name, for messages.
            transform: The transform of the model.

        Returns:
            The prepared image.

        Raises:
            Refusal: The data is not an image, or the image is too large.
        """
        # Work that waits in an executor cannot be cancelled, so it waits here for a free thread.
        await self._free_threads.acquire()
        loop = asyncio.get_running_loop()
        work = self._threads.submit(self._prepare, data, name, transform)
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_threads.release))
        return await asyncio.wrap_future(work)

    def _prepare(self, data: bytes, name: str, transform: Transform) -> Prepared:
        began = perf_counter()
        try:
            picture = open_picture(
                data,
                name=name,
                channels=transform.preprocessing.channels,
                max_pixels=self._max_image_pixels,
                value_range=transform.preprocessing.value_range,
            )
            with self._budget(picture.held_pixels):
                pixels = transform(picture.decode())
        except ImageSizeError as error:
            raise Refusal(413, "image_too_large", str(error)) from None
        except (DataError, MissingPackageError) as error:
            raise Refusal(415, "not_an_image", str(error)) from None
        self._measure(perf_counter() - began)
        size = picture.height, picture.width
        return Prepared(pixels, transform.preprocessing.seen(*size), size)

    def shut_down(self) -> None:
        """Finish the images that are being decoded, and cancel the others."""
        self._threads.shutdown(cancel_futures=True)


class _Budget:
    """Bounds an amount that threads share: `with budget(amount):` waits until it is free."""

    def __init__(self, free: int) -> None:
        self._free, self._changed = free, threading.Condition()

    @contextmanager
    def __call__(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: amount <= self._free)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
