import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from convnextv2.inference.scorer import Scores
from convnextv2.server.admission import Admission
from convnextv2.server.batcher import Batcher
from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

pytestmark = pytest.mark.anyio


class Model:
    """Returns each image's first value, and remembers its batches. Closing `gate` holds it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, pixels: Tensor) -> Scores:
        values = pixels[:, 0, 0, 0].tolist()
        self.batches.append(values)
        assert self.gate.wait(10)
        if 13 in values:
            raise ZeroDivisionError("13")
        found = np.array(values, dtype=np.float32)[:, None]
        return Scores(found, found + 0.25, found[..., None] + 0.5)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def start(model: Model) -> AsyncIterator[Callable[..., Batcher]]:
    """A function that starts a batcher of the model, which ends with the test.

    It is called as `start(**limits)`. The batcher's `measured` lists what it measured.
    """
    with ThreadPoolExecutor(1) as executor:
        begun = []

        def start(**limits: float) -> Batcher:
            measured: list[tuple[int, list[float], float]] = []
            batcher = Batcher(
                model, executor, Limits(**limits), lambda *found: measured.append(found)
            )  # type: ignore[arg-type]
            batcher.measured = measured  # type: ignore[attr-defined]
            batcher.start()
            begun.append(batcher)
            return batcher

        yield start
        model.gate.set()
        for batcher in begun:
            await batcher.stop()


def ask(batcher: Batcher, value: int, deadline_s: float = 10) -> asyncio.Task[Scores]:
    async def score(pixels: Tensor) -> Scores:
        return await batcher(pixels, asyncio.get_running_loop().time() + deadline_s)

    return asyncio.create_task(score(torch.full((3, 2, 2), value, dtype=torch.uint8)))


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.001)


async def answered(*tasks: Awaitable[Scores]) -> list[Scores]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*tasks)


async def test_each_image_gets_its_own_scores_and_no_batch_is_too_large(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=4, max_delay_ms=20)
    values = [7, 3, 9, 1, 8, 2, 6, 4, 5, 0]
    for value, scores in zip(
        values, await answered(*(ask(batcher, value) for value in values)), strict=True
    ):
        assert scores.probs.tolist() == [[value]]
        assert scores.embedding.tolist() == [[value + 0.25]] and scores.explanation.tolist() == [
            [[value + 0.5]]
        ]
    assert model.batches == [values[:4], values[4:8], values[8:]]
    assert [images for images, _, _ in batcher.measured] == [4, 4, 2]
    assert all(
        len(waits) == images and min(waits) >= 0 <= seconds
        for images, waits, seconds in batcher.measured
    )


async def test_a_full_batch_does_not_wait(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start(max_batch=3, max_delay_ms=60_000)
    first = [ask(batcher, value) for value in (1, 2)]
    await asyncio.sleep(0.05)
    assert not model.batches
    await answered(*first, ask(batcher, 3))
    assert model.batches == [[1, 2, 3]]


async def test_a_lone_image_waits_for_others_for_the_delay_only(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=3, max_delay_ms=100)
    began = asyncio.get_running_loop().time()
    await answered(ask(batcher, 1))
    assert 0.09 < asyncio.get_running_loop().time() - began < 5 and model.batches == [[1]]


async def test_images_gather_while_the_model_is_busy(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=8, max_delay_ms=0)
    model.gate.clear()
    first = ask(batcher, 1)
    await until(lambda: model.batches)
    others = [ask(batcher, value) for value in (2, 3, 4)]
    await asyncio.sleep(0.01)
    model.gate.set()
    assert [scores.probs.item() for scores in await answered(first, *others)] == [1, 2, 3, 4]
    assert model.batches == [[1], [2, 3, 4]]


async def test_images_whose_request_has_gone_are_not_scored(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=8, max_delay_ms=0)
    model.gate.clear()
    first = ask(batcher, 1)
    await until(lambda: model.batches)
    gone, stays = ask(batcher, 2), ask(batcher, 3)
    await asyncio.sleep(0.01)
    gone.cancel()
    first.cancel()  # while the model has it
    await asyncio.sleep(0)
    model.gate.set()
    assert (await answered(stays))[0].probs.item() == 3
    assert model.batches == [[1], [3]]


async def test_others_are_scored_after_all_have_gone_that_waited(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=8, max_delay_ms=50)
    gone = ask(batcher, 1)
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0.1)
    assert (await answered(ask(batcher, 2)))[0].probs.item() == 2
    assert model.batches == [[2]]


async def test_images_whose_deadline_has_passed_are_refused_unscored(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=8, max_delay_ms=0)
    model.gate.clear()
    first = ask(batcher, 1)
    await until(lambda: model.batches)
    late, stays = ask(batcher, 2, 0.01), ask(batcher, 3)
    await asyncio.sleep(0.05)
    model.gate.set()
    assert (await answered(first, stays))[1].probs.item() == 3
    with pytest.raises(Refusal) as refusal:
        await late
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after_s) == (
        503,
        "deadline_exceeded",
        1,
    )
    assert model.batches == [[1], [3]]


async def test_an_error_of_the_model_reaches_its_batch_and_no_other(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=2, max_delay_ms=20)
    bad = await asyncio.gather(ask(batcher, 13), ask(batcher, 1), return_exceptions=True)
    assert [type(error) for error in bad] == [ZeroDivisionError, ZeroDivisionError]
    assert (await answered(ask(batcher, 2)))[0].probs.item() == 2
    assert [images for images, _, _ in batcher.measured] == [1]


async def test_stopping_scores_what_waits_without_delay(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_batch=4, max_delay_ms=60_000)
    waiting = [ask(batcher, value) for value in (1, 2)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await batcher.stop()
    assert [scores.probs.item() for scores in await answered(*waiting)] == [1, 2]


async def test_a_queue_that_fails_each_time_can_be_stopped(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start()

    async def broken() -> None:
        raise ZeroDivisionError("a mistake of ours")

    batcher._collect = broken
    with pytest.raises(Refusal):
        await ask(batcher, 1)
        await ask(batcher, 2)
    async with asyncio.timeout(30):
        await batcher.stop()


def test_the_queue_takes_so_many_images_and_room_comes_back() -> None:
    admission = Admission(Limits(max_queue=4))
    admission.reserve(3)
    with pytest.raises(Refusal) as refusal:
        admission.reserve(2)
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after_s) == (
        429,
        "queue_full",
        1,
    )
    assert admission.waiting == 3
    admission.reserve(1)
    admission.release(3)
    admission.reserve(3)
    assert admission.waiting == 4


def test_the_queue_refuses_what_would_wait_too_long_but_never_an_empty_servers_first_request() -> (
    None
):
    admission = Admission(Limits(max_queue=1000, deadline_s=10))
    admission.update_pace(2, 1.0)
    admission.reserve(50)  # 25 s of work, and still the only chance that it gets
    admission.release(50)
    admission.reserve(8)
    with pytest.raises(Refusal, match="for about 6 s"):
        admission.reserve(3)
    admission.reserve(2)
    assert admission.waiting == 10


def test_the_pace_is_a_moving_average() -> None:
    admission = Admission(Limits())
    admission.update_pace(10, 1.0)
    assert admission.pace == 10
    admission.update_pace(20, 1.0)
    assert admission.pace == pytest.approx(11)
