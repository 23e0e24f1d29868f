"""The paths of our own interface: list models, describe them, and classify images."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from convnextv2.inference.result import result_of
from convnextv2.inference.scorer import Scorer, Scores
from convnextv2.server import schemas
from convnextv2.server.bodies import IMAGE_BODY, IMAGES_BODY, read_images
from convnextv2.server.decoders import Prepared
from convnextv2.server.models import Models
from convnextv2.server.refusal import Refusal
from convnextv2.server.routes.dependencies import ModelsOf
from convnextv2.server.scoring import run_all, score
from convnextv2.server.served import Served

router = APIRouter(tags=["models"])


class Wanted(BaseModel):
    """The parts of an answer that a client wants for each image."""

    model_config = ConfigDict(extra="forbid")  # a mistyped name would have no effect

    top_k: int = Field(
        5,
        ge=1,
        le=1000,
        description="How many classes of each image to return. If an image may have any number of "
        "labels, all that it has are returned.",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Leave out classes that are less probable than this. If an image may have any "
        "number of labels, this replaces the threshold of each.",
    )
    embedding: bool = Field(False, description="Also return the pooled features.")
    explanation: bool = Field(
        False, description="Also return the class activation map of the most probable class."
    )


@router.get("/v1/models", responses={401: schemas.REFUSALS[401]})
async def list_models(models: ModelsOf) -> schemas.ModelList:
    """List the names of all models."""
    return schemas.ModelList(models=models.names)


@router.get("/v1/models/{name}", responses={401: schemas.REFUSALS[401], 404: schemas.REFUSALS[404]})
async def describe_model(models: ModelsOf, name: str) -> schemas.ModelInfo:
    """Describe a model: versions, hashes, classes, preprocessing, licences and certificates."""
    return schemas.ModelInfo(
        name=name, versions=[_describe(served) for served in models.versions(name)]
    )


_PREDICT: dict[str, Any] = {
    "responses": schemas.REFUSALS,
    "response_model": schemas.PredictResponse,
    "openapi_extra": IMAGES_BODY,
}


@router.post("/v1/models/{name}/predict", **_PREDICT)
async def predict(
    models: ModelsOf, request: Request, name: str, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Classify the images in the body with the newest version of a model.

    The body is one image file as it is, several files as multipart, or JSON with files in base64.
    """
    return await _predict(models, request, name, None, wanted)


@router.post("/v1/models/{name}/versions/{version}/predict", **_PREDICT)
async def predict_by_version(
    models: ModelsOf, request: Request, name: str, version: str, wanted: Annotated[Wanted, Query()]
) -> Response:
    """Classify the images in the body with one version of a model."""
    return await _predict(models, request, name, version, wanted)


async def _predict(
    models: Models, request: Request, name: str, version: str | None, wanted: Wanted
) -> Response:
    models.check_ready()
    async with models.use(name, version) as served:
        scorer = served.classifier
        models.admission.check(1)  # before the body is read
        files = await read_images(request, models.limits)
        scored = await score(request, models, served, files)
        images = [
            _prediction(title, prepared, scores, scorer, wanted)
            for (title, _), (prepared, scores) in zip(files, scored, strict=True)
        ]
    return JSONResponse({"model": name, "version": served.version, "images": images})


def _prediction(
    title: str, prepared: Prepared, scores: Scores, scorer: Scorer, wanted: Wanted
) -> dict[str, Any]:
    """Return the part of an answer that is about one image."""
    found: dict[str, Any] = {
        "image": title,
        **result_of(scorer, scores, wanted.top_k, threshold=wanted.threshold),
    }
    if wanted.embedding:
        found["embedding"] = scores.embedding[0].tolist()
    if wanted.explanation:
        found["explanation"] = {"map": scores.explanation[0].tolist(), "seen": prepared.seen}
    return found


class WantedTiles(BaseModel):
    """The tiles of an image that a client wants to have hidden."""

    model_config = ConfigDict(extra="forbid")

    mask_ratio: float = Field(0.6, gt=0, lt=1, description="Share of the tiles that is hidden.")
    seed: int = Field(0, ge=0, le=2**31, description="Decides which tiles are hidden.")


@router.post("/v1/models/{name}/reconstruct", responses=schemas.REFUSALS, openapi_extra=IMAGE_BODY)
async def reconstruct(
    models: ModelsOf,
    request: Request,
    name: str,
    wanted: Annotated[WantedTiles, Query()],
) -> schemas.ReconstructResponse:
    """Reconstruct the image in the body with a pre-trained model, which sees only some tiles."""
    models.check_ready()
    async with models.use(name) as served:
        model = served.pretrained
        models.admission.check(1)
        files = await read_images(request, models.limits)
        if len(files) != 1:
            raise Refusal(400, "bad_request", f"{len(files)} images. Expected one.")
        loop = asyncio.get_running_loop()

        async def work(name: str, data: bytes) -> tuple[Prepared, tuple[str, str]]:
            prepared = await models.decoders.prepare(data, name, served.transform)
            return prepared, await loop.run_in_executor(
                models.model_thread, model, prepared.pixels, wanted.mask_ratio, wanted.seed
            )

        deadline = loop.time() + models.limits.deadline_s
        [(prepared, (masked, made))] = await run_all(request, models, deadline, [work(*files[0])])
    return schemas.ReconstructResponse(
        model=name, version=served.version, masked=masked, reconstruction=made, seen=prepared.seen
    )


def _kind(
    served: Served,
) -> Literal["classifier", "multi_label", "pre-trained", "segmentation", "detection"]:
    if served.dense is not None:
        return served.dense.kind
    if served.scorer is None:
        return "pre-trained"
    return "multi_label" if served.scorer.is_multi_label else "classifier"


def _describe(served: Served) -> schemas.ModelVersion:
    scorer, transform = served.scorer, served.transform
    answering = scorer or served.dense
    return schemas.ModelVersion(
        version=served.version,
        engine=served.engine,
        sha256=served.sha256,
        kind=_kind(served),
        image_size=transform.preprocessing.image_size,
        class_names=answering.class_names if answering else [],
        thresholds=list(scorer.thresholds or ()) if scorer else [],
        coverage=scorer.unknown.about.coverage if scorer and scorer.unknown else None,
        preprocessing=dict(vars(transform.preprocessing)),
        notes=served.notes,
        certificate=dict(answering.certificate) if answering else {},
    )
