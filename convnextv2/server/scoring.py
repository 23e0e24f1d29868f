"""From the images of a request to their scores."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import torch
from fastapi import Request
from starlette.requests import ClientDisconnect
from torch import Tensor

from convnextv2.inference.scorer import Scores
from convnextv2.server.batcher import Batcher, late
from convnextv2.server.models import Prepared, Store
from convnextv2.server.refusal import Refusal
from convnextv2.server.schemas import V2Tensor
from convnextv2.server.served import Served

Result = TypeVar("Result")


async def score(
    request: Request, store: Store, served: Served, files: Sequence[tuple[str, bytes]]
) -> list[tuple[Prepared, Scores]]:
    """Decode, wait for the model, score; all images of a request or none."""
    deadline = asyncio.get_running_loop().time() + store.limits.deadline_s
    batches = served.batches

    async def one(name: str, data: bytes) -> tuple[Prepared, Scores]:
        prepared = await store.prepare(data, name, served.transform)
        return prepared, await batches(prepared.pixels, deadline)

    return await together(request, store, deadline, [one(name, data) for name, data in files])


async def score_pixels(
    request: Request, store: Store, served: Served, given: V2Tensor
) -> list[Scores]:
    """The same for pixels that come at the model's size."""
    batches = served.batches
    size = [*served.transform.image_size, served.transform.channels]
    if given.shape[1:] != size or not 1 <= given.shape[0] <= store.limits.max_images:
        raise Refusal(
            400,
            "bad_shape",
            f"shape {given.shape}: expected [N, {size[0]}, {size[1]}, {size[2]}], N at most {store.limits.max_images}.",
        )
    count = torch.Size(given.shape).numel()
    if given.raw is not None:
        if len(given.raw) != count:
            raise Refusal(
                400, "bad_data", f"{len(given.raw)} bytes: expected {count}, one for each value."
            )
        return await _score_images(
            request,
            store,
            batches,
            torch.frombuffer(bytearray(given.raw), dtype=torch.uint8).view(given.shape),
        )
    try:
        pixels = torch.tensor(given.data)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        raise Refusal(400, "bad_data", "data: expected whole numbers from 0 to 255.") from None
    if (
        pixels.dtype != torch.int64
        or pixels.numel() != count
        or bool(((pixels < 0) | (pixels > 255)).any())
    ):
        raise Refusal(400, "bad_data", f"data: expected {count} whole numbers from 0 to 255.")
    return await _score_images(request, store, batches, pixels.to(torch.uint8).view(given.shape))


async def _score_images(
    request: Request, store: Store, batches: Batcher, pixels: Tensor
) -> list[Scores]:
    images = pixels.permute(0, 3, 1, 2)
    deadline = asyncio.get_running_loop().time() + store.limits.deadline_s
    return await together(request, store, deadline, [batches(image, deadline) for image in images])


async def together(
    request: Request, store: Store, deadline: float, works: list[Coroutine[Any, Any, Result]]
) -> list[Result]:
    """Await all works, in their order, within the deadline, as images of the queue; where one fails, or the client leaves, none
    goes on."""
    try:
        store.queue.take(len(works))
    except Refusal:
        for work in works:
            work.close()
        raise
    tasks = [asyncio.create_task(work) for work in works]
    results = asyncio.gather(*tasks)
    results.add_done_callback(
        lambda done: done.cancelled() or done.exception()
    )  # else asyncio complains of each that is late
    leaving = asyncio.create_task(_leaving(request))
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait((results, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                raise ClientDisconnect
            return list(await results)
    except TimeoutError:
        raise late(store.limits) from None
    finally:
        results.cancel()
        for task in (*tasks, leaving):
            task.cancel()
        store.queue.give_back(len(tasks))


async def _leaving(request: Request) -> None:
    """Returns when the client is gone. Its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
