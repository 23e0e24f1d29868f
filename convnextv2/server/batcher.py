"""Dynamic batching: images of many requests scored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from convnextv2.inference.scorer import Scores
from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
"""Before a batcher that has failed begins anew."""


@dataclass(eq=False)
class _Job:
    pixels: Tensor
    answer: asyncio.Future[Scores]
    came: float
    deadline: float


class Batcher:
    """One model's batches. Use it inside of one event loop, between `start` and `stop`.

    Args:
        score: uint8 pixels (N, C, H, W) to scores; runs in `executor`, one batch at a time.
        executor: Where the model computes.
        limits: The server's.
        measure: Called with images of a batch, seconds that each of them waited, and seconds of the model.
        failed: Called with what has ended the batcher. The batcher starts again by itself, after a pause that doubles.
    """

    def __init__(
        self,
        score: Callable[[Tensor], Scores],
        executor: Executor,
        limits: Limits,
        measure: Callable[[int, list[float], float], None],
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._failed = failed
        self._deaths = 0
        self._batch: list[_Job] = []
        self.is_alive = False
        self._score, self._executor, self._limits, self._measure = score, executor, limits, measure
        self._jobs: deque[_Job] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to score."""
        self.is_alive = True
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        """Score until `stop`. `_run` answers for every failure of the model, so what ends it is a mistake of ours: all who wait
        are told, and it begins anew. Without this they, and all who come later, would wait for their deadline."""
        while True:
            self.is_alive = True
            try:
                await self._run()
                return
            except Exception as error:
                self.is_alive = False
                for job in (*self._batch, *self._jobs):
                    if not job.answer.done():
                        job.answer.set_exception(_failed())
                self._jobs.clear()
                self._failed(error)
            finally:
                self.is_alive = False
            if self._stopping:  # what fails each time would never let the server end
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

    async def __call__(self, pixels: Tensor, deadline: float) -> Scores:
        """Scores of one image, uint8 (C, H, W). deadline: of the event loop's clock. Raises Refusal where it passes."""
        loop = asyncio.get_running_loop()
        job = _Job(pixels, loop.create_future(), loop.time(), deadline)
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
            now = loop.time()
            alive = []
            for job in batch:
                if job.answer.done():
                    continue
                if job.deadline < now:
                    job.answer.set_exception(late(self._limits))
                else:
                    alive.append(job)
            if not alive:
                continue
            try:
                scores = await loop.run_in_executor(
                    self._executor, self._score, torch.stack([job.pixels for job in alive])
                )
                self._measure(len(alive), [now - job.came for job in alive], loop.time() - now)
            except Exception as error:
                for job in alive:
                    if not job.answer.done():
                        job.answer.set_exception(error)
                continue
            for i, job in enumerate(alive):
                if not job.answer.done():
                    part = slice(i, i + 1)
                    job.answer.set_result(
                        Scores(scores.probs[part], scores.embedding[part], scores.explanation[part])
                    )
            self._deaths = 0

    async def _collect(self) -> list[_Job]:
        """The next batch, at least one job; empty at the end."""
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
                return [
                    self._jobs.popleft()
                    for _ in range(min(len(self._jobs), self._limits.max_batch))
                ]


def _failed() -> Refusal:
    return Refusal(
        503,
        "model_failed",
        "The model's queue has failed and is started again. Try again later.",
        1,
    )


def late(limits: Limits) -> Refusal:
    """The deadline has passed."""
    return Refusal(
        503,
        "deadline_exceeded",
        f"No answer within {limits.deadline_s:g} s: the server is busy. Try again later.",
        1,
    )
