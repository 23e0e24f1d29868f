"""Decode and score the images of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import torch
from fastapi import Request
from starlette.requests import ClientDisconnect
from torch import Tensor

from convnextv2.inference.scorer import Scores
from convnextv2.server.answers import AnswerBudget
from convnextv2.server.batcher import deadline_refusal
from convnextv2.server.decoders import Prepared
from convnextv2.server.models import Models
from convnextv2.server.refusal import Refusal
from convnextv2.server.schemas import V2Tensor
from convnextv2.server.served import Served

Result = TypeVar("Result")


async def score(
    request: Request, models: Models, served: Served, files: Sequence[tuple[str, bytes]]
) -> list[tuple[Prepared, Scores]]:
    """Decode and score all images of a request. If one fails, the request fails.

    Args:
        request: The request.
        models: The server's models.
        served: The model that scores.
        files: Name and content of each image file.

    Returns:
        Each prepared image and its scores.

    Raises:
        Refusal: There is no room, an image cannot be used, or the deadline has passed.
        ClientDisconnect: The client has disconnected.
    """
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    batcher = served.running_batcher

    async def one(name: str, data: bytes) -> tuple[Prepared, Scores]:
        prepared = await models.decoders.prepare(data, name, served.transform)
        return prepared, await batcher(prepared.pixels, deadline)

    return await run_all(request, models, deadline, [one(name, data) for name, data in files])


async def answer_images(
    request: Request,
    models: Models,
    served: Served,
    files: Sequence[tuple[str, bytes]],
    wanted: object,
    budget: AnswerBudget,
) -> list[bytes]:
    """Decode all images of a request, and answer each by a segmentor or a detector.

    Args:
        request: The request.
        models: The server's models.
        served: The model.
        files: Name and content of each image file.
        wanted: The parts of the answer that the client wants.
        budget: The size that the answer may have.

    Returns:
        The JSON of each image's answer.

    Raises:
        Refusal: There is no room, an image cannot be used, or the deadline has passed.
        ClientDisconnect: The client has disconnected.
    """
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    batcher = served.running_batcher

    async def one(name: str, data: bytes) -> bytes:
        prepared = await models.decoders.prepare(data, name, served.transform)
        text: bytes = await batcher((prepared, wanted, name, budget), deadline)
        return text

    return await run_all(request, models, deadline, [one(name, data) for name, data in files])


async def score_pixels(
    request: Request, models: Models, served: Served, given: V2Tensor
) -> list[Scores]:
    """Score pixels that already have the model's size.

    Args:
        request: The request.
        models: The server's models.
        served: The model that scores.
        given: The tensor, uint8 (N, H, W, C).

    Returns:
        The scores of each image.

    Raises:
        Refusal: The tensor does not fit, there is no room, or the deadline has passed.
        ClientDisconnect: The client has disconnected.
    """
    batcher = served.running_batcher
    pixels = _read_pixels(given, served, models.limits.max_images)
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    coroutines = [batcher(image, deadline) for image in pixels.permute(0, 3, 1, 2)]
    return await run_all(request, models, deadline, coroutines)


def _read_pixels(given: V2Tensor, served: Served, max_images: int) -> Tensor:
    """Read the values of a tensor, uint8 (N, H, W, C). Raises Refusal if they do not fit."""
    size = [*served.transform.preprocessing.image_size, served.transform.preprocessing.channels]
    if given.shape[1:] != size or not 1 <= given.shape[0] <= max_images:
        raise Refusal(
            400,
            "bad_shape",
            f"shape {given.shape}: expected [N, {size[0]}, {size[1]}, {size[2]}], N at most "
            f"{max_images}.",
        )
    count = torch.Size(given.shape).numel()
    if given.raw is not None:
        if len(given.raw) != count:
            raise Refusal(
                400, "bad_data", f"{len(given.raw)} bytes: expected {count}, one for each value."
            )
        return torch.frombuffer(bytearray(given.raw), dtype=torch.uint8).view(given.shape)
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
    return pixels.to(torch.uint8).view(given.shape)


async def run_all(
    request: Request, models: Models, deadline: float, coroutines: list[Coroutine[Any, Any, Result]]
) -> list[Result]:
    """Run the work on all images of a request. If one fails or the client disconnects, all end.

    Args:
        request: The request.
        models: The server's models, in whose queue the images wait.
        deadline: The time after which the answer is too late, by the event loop's clock.
        coroutines: The work on each image.

    Returns:
        The results, in the order of `coroutines`.

    Raises:
        Refusal: There is no room in the queue, or the deadline has passed.
        ClientDisconnect: The client has disconnected.
    """
    try:
        models.admission.reserve(len(coroutines))
    except Refusal:
        for work in coroutines:
            work.close()
        raise
    tasks = [asyncio.create_task(work) for work in coroutines]
    results = asyncio.gather(*tasks)
    # The exception must be retrieved, or asyncio logs an error for each request that is late.
    results.add_done_callback(lambda done: done.cancelled() or done.exception())
    leaving = asyncio.create_task(_disconnected(request))
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait((results, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                raise ClientDisconnect
            return list(await results)
    except TimeoutError:
        raise deadline_refusal(models.limits) from None
    finally:
        results.cancel()
        for task in (*tasks, leaving):
            task.cancel()
        models.admission.release(len(tasks))


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected. The body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
