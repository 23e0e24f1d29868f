"""Dynamic batching: images of many requests are answered together."""

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
"""How long a batcher that has failed pauses before it starts again, in seconds."""


@dataclass(eq=False)
class _Job:
    """One image that waits. came, deadline: times of the event loop's clock, in seconds."""

    image: Any
    answer: asyncio.Future[Any]
    came: float
    deadline: float

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless the client has left or has its answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batcher:
    """Gathers the images of one model into batches.

    Use it inside of one event loop, between `start` and `stop`.

    Args:
        score: Turns the joined images of a batch into its answers; for a classifier, pixels, uint8
            (N, C, H, W), into scores.
        model_thread: Where `score` runs, one batch at a time.
        limits: The server's limits.
        measure: Called after each batch with its number of images, the seconds that each of them
            waited, and the seconds that the model took.
        failed: Called with the error that has ended the batcher. The batcher starts again by
            itself, after a pause that doubles.
        join: Joins the images of a batch.
        part: Takes the answer of one image from those of a batch.
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
        part: Callable[[Any, int], Any] = lambda scores, i: scores.row(i),
    ) -> None:
        self._join, self._part = join, part
        self._score, self._model_thread, self._limits = score, model_thread, limits
        self._measure, self._failed = measure, failed
        self._deaths = 0
        self._batch: list[_Job] = []
        self.is_alive = False
        self._jobs: deque[_Job] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to score."""
        self.is_alive = True
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        """Score until `stop`.

        `_run` passes every failure of the model on to those who wait for it, so what ends `_run` is
        a mistake of ours. Then all who wait are told, and it starts again. Without this, they and
        all who come later would wait for their deadline.
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
            if self._stopping:  # a batcher that fails each time would never let the server end
                return
            await asyncio.sleep(min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2**self._deaths))
            self._deaths += 1

    async def stop(self) -> None:
        """Score what waits, then end."""
        self._stopping = True
        self._arrived.set()
        self._full.set()
        if self._task:
            await self._task

    async def __call__(self, image: Any, deadline: float) -> Any:
        """Score one image.

        Args:
            image: What `join` takes a list of; for a classifier, uint8 (C, H, W).
            deadline: When the answer is too late, by the event loop's clock.

        Returns:
            What `part` takes of the answers; for a classifier, scores of one row each.

        Raises:
            Refusal: The deadline has passed before the model had time, or the batcher has failed.
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
            if not job.answer.done() or job.answer.cancelled():  # the client has left
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
                self._measure(len(jobs), [began - job.came for job in jobs], loop.time() - began)
            except Exception as error:
                for job in jobs:
                    job.fail(error)
                continue
            for i, job in enumerate(jobs):
                if not job.answer.done():
                    job.answer.set_result(self._part(scores, i))
            self._deaths = 0

    def _still_wanted(self, batch: Sequence[_Job], now: float) -> list[_Job]:
        """Refuse the jobs whose deadline has passed, and leave out those whose client has left."""
        for job in batch:
            if job.deadline < now:
                job.fail(late(self._limits))
        return [job for job in batch if not job.answer.done()]

    async def _collect(self) -> list[_Job]:
        """Wait for the next batch.

        Returns:
            At least one job; none at the end.
        """
        while True:
            while not self._jobs:
                if self._stopping:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            wait = (
                self._jobs[0].came
                + self._limits.max_delay_ms / 1000
                - asyncio.get_running_loop().time()
            )
            if wait > 0 and len(self._jobs) < self._limits.max_batch and not self._stopping:
                self._full.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._full.wait()
            if self._jobs:  # all may have left meanwhile
                size = min(len(self._jobs), self._limits.max_batch)
                return [self._jobs.popleft() for _ in range(size)]


def _failed() -> Refusal:
    return Refusal(
        503,
        "model_failed",
        "The model's queue has failed and is started again. Try again later.",
        1,
    )


def late(limits: Limits) -> Refusal:
    """Return the refusal of an image whose deadline has passed."""
    return Refusal(
        503,
        "deadline_exceeded",
        f"No answer within {limits.deadline_s:g} s: the server is busy. Try again later.",
        1,
    )
