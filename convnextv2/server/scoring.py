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
from convnextv2.server.answers import AnswerBudget
from convnextv2.server.batcher import late
from convnextv2.server.decoders import Prepared
from convnextv2.server.models import Models
from convnextv2.server.refusal import Refusal
from convnextv2.server.schemas import V2Tensor
from convnextv2.server.served import Served

Result = TypeVar("Result")


async def score(
    request: Request, models: Models, served: Served, files: Sequence[tuple[str, bytes]]
) -> list[tuple[Prepared, Scores]]:
    """Decode and score all images of a request, or none.

    Args:
        request: The request.
        models: The server's models.
        served: The model that scores.
        files: Name and content of each image file.

    Returns:
        Each image as the model got it, and its scores.

    Raises:
        Refusal: There is no room, an image cannot be used, or the deadline has passed.
        ClientDisconnect: The client has left.
    """
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    batcher = served.running_batcher

    async def one(name: str, data: bytes) -> tuple[Prepared, Scores]:
        prepared = await models.decoders.prepare(data, name, served.transform)
        return prepared, await batcher(prepared.pixels, deadline)

    return await together(request, models, deadline, [one(name, data) for name, data in files])


async def answer_images(
    request: Request,
    models: Models,
    served: Served,
    files: Sequence[tuple[str, bytes]],
    wanted: object,
    budget: AnswerBudget,
) -> list[bytes]:
    """Decode all images of a request and let a segmentor or a detector answer for each, or none.

    Args:
        request: The request.
        models: The server's models.
        served: The model.
        files: Name and content of each image file.
        wanted: What the client asks for.
        budget: How large the answer may be.

    Returns:
        The JSON of each image's answer.

    Raises:
        Refusal: There is no room, an image cannot be used, or the deadline has passed.
        ClientDisconnect: The client has left.
    """
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    batcher = served.running_batcher

    async def one(name: str, data: bytes) -> bytes:
        prepared = await models.decoders.prepare(data, name, served.transform)
        text: bytes = await batcher((prepared, wanted, name, budget), deadline)
        return text

    return await together(request, models, deadline, [one(name, data) for name, data in files])


async def score_pixels(
    request: Request, models: Models, served: Served, given: V2Tensor
) -> list[Scores]:
    """Score pixels that come at the model's size.

    Args:
        request: The request.
        models: The server's models.
        served: The model that scores.
        given: The tensor, uint8 (N, H, W, C).

    Returns:
        The scores of each image.

    Raises:
        Refusal: The tensor does not fit, there is no room, or the deadline has passed.
        ClientDisconnect: The client has left.
    """
    batcher = served.running_batcher
    pixels = _read_pixels(given, served, models.limits.max_images)
    deadline = asyncio.get_running_loop().time() + models.limits.deadline_s
    works = [batcher(image, deadline) for image in pixels.permute(0, 3, 1, 2)]
    return await together(request, models, deadline, works)


def _read_pixels(given: V2Tensor, served: Served, max_images: int) -> Tensor:
    """Read the values of a tensor, uint8 (N, H, W, C). Raises Refusal if the model takes others."""
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


async def together(
    request: Request, models: Models, deadline: float, works: list[Coroutine[Any, Any, Result]]
) -> list[Result]:
    """Await the work on all images of a request. If one fails, or the client leaves, all end.

    Args:
        request: The request.
        models: The server's models, in whose queue the images wait.
        deadline: When the answer is too late, by the event loop's clock.
        works: The work on each image.

    Returns:
        The results, in the order of the works.

    Raises:
        Refusal: There is no room in the queue, or the deadline has passed.
        ClientDisconnect: The client has left.
    """
    try:
        models.admission.take(len(works))
    except Refusal:
        for work in works:
            work.close()
        raise
    tasks = [asyncio.create_task(work) for work in works]
    results = asyncio.gather(*tasks)
    # Somebody has to look at the outcome, or else asyncio complains of each request that is late.
    results.add_done_callback(lambda done: done.cancelled() or done.exception())
    leaving = asyncio.create_task(_leaving(request))
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait((results, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not results.done():
                raise ClientDisconnect
            return list(await results)
    except TimeoutError:
        raise late(models.limits) from None
    finally:
        results.cancel()
        for task in (*tasks, leaving):
            task.cancel()
        models.admission.give_back(len(tasks))


async def _leaving(request: Request) -> None:
    """Return when the client is gone. The body has been read before, so that nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
