"""Dynamic batching: score the images of many requests together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
"""The limits of the pause, in seconds, after which a batcher that has failed starts again."""


@dataclass(eq=False)
class _Job:
    """An image that waits. The times are in seconds, by the event loop's clock."""

    image: Any
    answer: asyncio.Future[Any]
    arrived: float
    deadline: float

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless the image is answered or its client has disconnected."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batcher:
    """Gathers the images for one model into batches.

    It must be used in one event loop, between `start` and `stop`.

    Args:
        score: Turns the joined images of a batch into its answers; for a classifier, pixels, uint8
            (N, C, H, W), into scores.
        model_thread: The executor in which `score` runs, one batch at a time.
        limits: The server's limits.
        measure: Called after each batch with its number of images, the seconds that each of them
            waited, and the seconds that the model took.
        failed: Called with the error that has ended the batcher. The batcher starts again by
            itself, after a pause that doubles.
        join: Joins the images of a batch.
        select: Returns the answer of one image, given those of a batch and the index.
    """

    def __init__(
        self,
        score: Callable[[Any], Any],
        model_thread: Executor,
        limits: Limits,
        measure: Callable[[int, list[float], float], None],
        failed: Callable[[BaseException], None] = lambda error: None,
        *,
        join: Callable[[list[Any]], Any] = torch.stack,
        select: Callable[[Any, int], Any] = lambda scores, i: scores.row(i),
    ) -> None:
        self._join, self._select = join, select
        self._score, self._model_thread, self._limits = score, model_thread, limits
        self._measure, self._failed = measure, failed
        self._failures = 0
        self._batch: list[_Job] = []
        self.is_alive = False
        self._jobs: deque[_Job] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to score."""
        self.is_alive = True
        self._task = asyncio.create_task(self._run_forever())

    async def _run_forever(self) -> None:
        """Score until `stop`, and start again after a bug.

        `_run` catches every error of the model and answers the affected images with it. If `_run`
        itself raises, that is a bug in this class. All images that wait are then answered with an
        error. Without this, they and all later ones would wait until their deadline.
        """
        while True:
            self.is_alive = True
            try:
                await self._run()
                return
            except Exception as error:
                self.is_alive = False
                for job in (*self._batch, *self._jobs):
                    job.fail(_failed())
                self._jobs.clear()
                self._failed(error)
            finally:
                self.is_alive = False
            if self._stopping:  # else a batcher that always fails would keep the server running
                return
            await asyncio.sleep(min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2**self._failures))
            self._failures += 1

    async def stop(self) -> None:
        """Score the images that wait, then end."""
        self._stopping = True
        self._arrived.set()
        self._full.set()
        if self._task:
            await self._task

    async def __call__(self, image: Any, deadline: float) -> Any:
        """Score one image.

        Args:
            image: An element of the list that `join` takes; for a classifier, uint8 (C, H, W).
            deadline: The time after which the answer is too late, by the event loop's clock.

        Returns:
            The answer that `select` returns; for a classifier, `Scores` of one row.

        Raises:
            Refusal: The deadline passed before the image was scored, or the batcher failed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(image, loop.create_future(), loop.time(), deadline)
        self._jobs.append(job)
        self._arrived.set()
        if len(self._jobs) >= self._limits.max_batch:
            self._full.set()
        try:
            return await job.answer
        finally:
            if not job.answer.done() or job.answer.cancelled():  # the client has disconnected
                with suppress(ValueError):
                    self._jobs.remove(job)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._collect():
            self._batch = batch
            began = loop.time()
            jobs = self._still_wanted(batch, began)
            if not jobs:
                continue
            try:
                scores = await loop.run_in_executor(
                    self._model_thread, self._score, self._join([job.image for job in jobs])
                )
                self._measure(len(jobs), [began - job.arrived for job in jobs], loop.time() - began)
            except Exception as error:
                for job in jobs:
                    job.fail(error)
                continue
            for i, job in enumerate(jobs):
                if not job.answer.done():
                    job.answer.set_result(self._select(scores, i))
            self._failures = 0

    def _still_wanted(self, batch: Sequence[_Job], now: float) -> list[_Job]:
        """Refuse jobs whose deadline has passed, and drop those whose client has disconnected."""
        for job in batch:
            if job.deadline < now:
                job.fail(deadline_refusal(self._limits))
        return [job for job in batch if not job.answer.done()]

    async def _collect(self) -> list[_Job]:
        """Wait for the next batch.

        Returns:
            At least one job, or an empty list after `stop`.
        """
        while True:
            while not self._jobs:
                if self._stopping:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            wait = (
                self._jobs[0].arrived
                + self._limits.max_delay_ms / 1000
                - asyncio.get_running_loop().time()
            )
            if wait > 0 and len(self._jobs) < self._limits.max_batch and not self._stopping:
                self._full.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._full.wait()
            if self._jobs:  # all clients may have disconnected meanwhile
                size = min(len(self._jobs), self._limits.max_batch)
                return [self._jobs.popleft() for _ in range(size)]


def _failed() -> Refusal:
    return Refusal(
        503,
        "model_failed",
        "The model's queue has failed and is started again. Try again later.",
        1,
    )


def deadline_refusal(limits: Limits) -> Refusal:
    """Return the refusal of an image whose deadline has passed."""
    return Refusal(
        503,
        "deadline_exceeded",
        f"No answer within {limits.deadline_s:g} s: the server is busy. Try again later.",
        1,
    )
