"""The paths of segmentors and detectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from convnextv2.server import schemas
from convnextv2.server.answers import AnswerBudget
from convnextv2.server.bodies import IMAGES_BODY, read_images
from convnextv2.server.detecting import WantedObjects
from convnextv2.server.models import Models
from convnextv2.server.routes.dependencies import ModelsOf
from convnextv2.server.scoring import answer_images
from convnextv2.server.segmenting import WantedMaps
from convnextv2.server.served import Served

router = APIRouter(tags=["models"])

_SEGMENT: dict[str, Any] = {
    "responses": schemas.REFUSALS,
    "response_model": schemas.SegmentResponse,
    "openapi_extra": IMAGES_BODY,
}
_DETECT: dict[str, Any] = _SEGMENT | {"response_model": schemas.DetectResponse}


@router.post("/v1/models/{name}/segment", **_SEGMENT)
async def segment(
    models: ModelsOf, request: Request, name: str, wanted: Annotated[WantedMaps, Query()]
) -> Response:
    """Classify every pixel of the images in the body with the newest version of a model.

    The body is one image file as it is, several files as multipart, or JSON with files in base64.
    """
    return await _answer(models, request, name, None, wanted, lambda served: served.segmentor)


@router.post("/v1/models/{name}/versions/{version}/segment", **_SEGMENT)
async def segment_by_version(
    models: ModelsOf,
    request: Request,
    name: str,
    version: str,
    wanted: Annotated[WantedMaps, Query()],
) -> Response:
    """Classify every pixel of the images in the body with one version of a model."""
    return await _answer(models, request, name, version, wanted, lambda served: served.segmentor)


@router.post("/v1/models/{name}/detect", **_DETECT)
async def detect(
    models: ModelsOf, request: Request, name: str, wanted: Annotated[WantedObjects, Query()]
) -> Response:
    """Find the objects in the images in the body with the newest version of a model.

    The body is one image file as it is, several files as multipart, or JSON with files in base64.
    """
    return await _answer(models, request, name, None, wanted, lambda served: served.detector)


@router.post("/v1/models/{name}/versions/{version}/detect", **_DETECT)
async def detect_by_version(
    models: ModelsOf,
    request: Request,
    name: str,
    version: str,
    wanted: Annotated[WantedObjects, Query()],
) -> Response:
    """Find the objects in the images in the body with one version of a model."""
    return await _answer(models, request, name, version, wanted, lambda served: served.detector)


async def _answer(
    models: Models,
    request: Request,
    name: str,
    version: str | None,
    wanted: WantedMaps | WantedObjects,
    model_of: Callable[[Served], object],
) -> Response:
    """Answer for the images in the body.

    Args:
        models: The server's models.
        request: The request.
        name: The model's name.
        version: Its version; None for the newest.
        wanted: The parts of the answer that the client wants.
        model_of: Raises a Refusal if a model is of another kind.
    """
    models.check_ready()
    async with models.use(name, version) as served:
        model_of(served)
        models.admission.check(1)  # before the body is read
        files = await read_images(request, models.limits)
        budget = AnswerBudget(models.limits.max_answer_mb)
        texts = await answer_images(request, models, served, files, wanted, budget)
    if budget.objects:
        models.metrics.objects.labels(name).inc(budget.objects)
    head = json.dumps({"model": name, "version": served.version})
    body = b"".join([head[:-1].encode(), b', "images": [', b",".join(texts), b"]}"])
    return Response(body, media_type="application/json")
