"""Our own paths: what models there are, and what they say of images."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from convnextv2.inference.predictor import top
from convnextv2.server import schemas
from convnextv2.server.bodies import IMAGE_BODY, IMAGES_BODY, read_images
from convnextv2.server.models import Prepared, Store
from convnextv2.server.refusal import Refusal
from convnextv2.server.routes import StoreOf
from convnextv2.server.scoring import score, together
from convnextv2.server.served import Served

router = APIRouter(tags=["models"])


class Wanted(BaseModel):
    """The parts of an answer that a client wants for each image."""

    top_k: int = Field(5, ge=1, le=1000, description="How many classes of each image.")
    threshold: float = Field(
        0.0, ge=0, le=1, description="Leave out classes that are less probable."
    )
    embedding: bool = Field(False, description="Return the pooled features, too.")
    explanation: bool = Field(
        False, description="Return the class activation map of the most probable class, too."
    )


@router.get("/v1/models", responses={401: schemas.REFUSALS[401]})
async def list_models(store: StoreOf) -> schemas.ModelList:
    """Names of all models."""
    return schemas.ModelList(models=store.names)


@router.get("/v1/models/{name}", responses={401: schemas.REFUSALS[401], 404: schemas.REFUSALS[404]})
async def describe_model(store: StoreOf, name: str) -> schemas.ModelInfo:
    """Versions, hashes, classes, preprocessing, licences and certificates of a model."""
    return schemas.ModelInfo(
        name=name, versions=[_describe(served) for served in store.versions(name)]
    )


_PREDICT: dict[str, Any] = {
    "responses": schemas.REFUSALS,
    "response_model": schemas.PredictResponse,
    "openapi_extra": IMAGES_BODY,
}


@router.post("/v1/models/{name}/predict", **_PREDICT)
async def predict(
    store: StoreOf, request: Request, name: str, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Classify the images in the body by the newest version of a model.

    The body is one file as it is, several files as multipart, or JSON with files in base64.
    """
    return await _answer(store, request, name, None, wanted)


@router.post("/v1/models/{name}/versions/{version}/predict", **_PREDICT)
async def predict_by_version(
    store: StoreOf, request: Request, name: str, version: str, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Classify the images of the body by a certain version."""
    return await _answer(store, request, name, version, wanted)


async def _answer(
    store: Store, request: Request, name: str, version: str | None, wanted: Wanted
) -> Response:
    store.check_ready()
    async with store.use(name, version) as served:
        class_names = served.classifier.class_names
        store.queue.check(1)  # before the body is read and taken apart
        files = await read_images(request, store.limits)
        images = []
        for (title, _), (prepared, scores) in zip(
            files, await score(request, store, served, files), strict=True
        ):
            best = top(scores.probs[0], class_names, wanted.top_k)
            found: dict[str, Any] = {
                "image": title,
                "predictions": [p for p in best if p["prob"] >= wanted.threshold],
            }
            if wanted.embedding:
                found["embedding"] = scores.embedding[0].tolist()
            if wanted.explanation:
                found["explanation"] = {
                    "map": scores.explanation[0].tolist(),
                    "seen": prepared.seen,
                }
            images.append(found)
    return JSONResponse({"model": name, "version": served.version, "images": images})


@router.post("/v1/models/{name}/reconstruct", responses=schemas.REFUSALS, openapi_extra=IMAGE_BODY)
async def reconstruct(
    store: StoreOf,
    request: Request,
    name: str,
    mask_ratio: Annotated[
        float, Query(gt=0, lt=1, description="Share of the tiles that is hidden.")
    ] = 0.6,
    seed: Annotated[int, Query(ge=0, le=2**31, description="Decides which tiles are hidden.")] = 0,
) -> schemas.ReconstructResponse:
    """Reconstruct the image in the body by a pre-trained model, which sees some tiles only."""
    store.check_ready()
    async with store.use(name) as served:
        model = served.pretrained
        store.queue.check(1)
        files = await read_images(request, store.limits)
        if len(files) != 1:
            raise Refusal(400, "bad_request", f"{len(files)} images. Expected one.")
        loop = asyncio.get_running_loop()

        async def work(name: str, data: bytes) -> tuple[Prepared, tuple[str, str]]:
            prepared = await store.prepare(data, name, served.transform)
            return prepared, await loop.run_in_executor(
                store.engine, model, prepared.pixels, mask_ratio, seed
            )

        deadline = loop.time() + store.limits.deadline_s
        [(prepared, (masked, made))] = await together(request, store, deadline, [work(*files[0])])
    return schemas.ReconstructResponse(
        model=name, version=served.version, masked=masked, reconstruction=made, seen=prepared.seen
    )


def _describe(served: Served) -> schemas.ModelVersion:
    scorer, transform = served.scorer, served.transform
    return schemas.ModelVersion(
        version=served.version,
        engine=served.engine,
        sha256=served.sha256,
        kind="classifier" if scorer else "pre-trained",
        image_size=transform.image_size,
        class_names=scorer.class_names if scorer else [],
        preprocessing=dict(vars(transform)),
        notes=served.notes,
        certificate=dict(scorer.certificate) if scorer else {},
    )
