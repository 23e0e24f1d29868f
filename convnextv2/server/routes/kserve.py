"""KServe's inference protocol, version 2 (Open Inference Protocol)."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from convnextv2.inference.scorer import Scores
from convnextv2.server import schemas
from convnextv2.server.bodies import MAX_NUMBERS, V2_BODY, decode_base64
from convnextv2.server.models import Models
from convnextv2.server.refusal import Refusal
from convnextv2.server.routes.dependencies import ModelsOf
from convnextv2.server.scoring import score, score_pixels
from convnextv2.server.served import Served
from convnextv2.server.tensors import (
    Column,
    answer,
    class_count,
    classes_of,
    elements,
    read_request,
)

_EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository"]
_SOME: dict[int | str, dict[str, Any]] = {
    status: schemas.V2_REFUSALS[status] for status in (401, 404)
}
_READY = _SOME | {503: schemas.V2_REFUSALS[503]}
_INFER: dict[str, Any] = {
    "responses": schemas.V2_REFUSALS
    | {
        200: {
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            }
        }
    },
    "response_model": schemas.V2Response,
    "openapi_extra": V2_BODY,
}

router = APIRouter(tags=["kserve v2"])


@router.get("/v2")
async def server() -> schemas.V2Server:
    """Describe this server."""
    return schemas.V2Server(
        name="convnextv2", version=version_of("convnextv2"), extensions=_EXTENSIONS
    )


@router.get("/v2/health/live")
async def live() -> schemas.V2Live:
    """Return that the process is alive, as /healthz does."""
    return schemas.V2Live(live=True)


@router.get("/v2/health/ready", responses={503: schemas.V2_REFUSALS[503]})
async def ready(models: ModelsOf) -> schemas.V2Ready:
    """Return whether all models are ready and the server is not ending, as /readyz does."""
    models.check_open()
    return schemas.V2Ready(ready=True)


@router.get("/v2/models/{name}", responses=_SOME)
async def metadata(models: ModelsOf, name: str) -> schemas.V2Metadata:
    """Describe the inputs and outputs of a model."""
    return _metadata(models, name, None)


@router.get("/v2/models/{name}/versions/{version}", responses=_SOME)
async def metadata_by_version(models: ModelsOf, name: str, version: str) -> schemas.V2Metadata:
    """Describe the inputs and outputs of a version."""
    return _metadata(models, name, version)


@router.get("/v2/models/{name}/config", responses=_SOME)
async def config(models: ModelsOf, name: str) -> schemas.V2Config:
    """Describe a model in the form of Triton's model configuration."""
    return _config(models, name, None)


@router.get("/v2/models/{name}/versions/{version}/config", responses=_SOME)
async def config_by_version(models: ModelsOf, name: str, version: str) -> schemas.V2Config:
    """Describe a version in the form of Triton's model configuration."""
    return _config(models, name, version)


@router.get("/v2/models/{name}/ready", responses=_READY)
async def model_ready(models: ModelsOf, name: str) -> schemas.V2Ready:
    """Return whether a model is ready."""
    return _is_ready(models, name, None)


@router.get("/v2/models/{name}/versions/{version}/ready", responses=_READY)
async def version_ready(models: ModelsOf, name: str, version: str) -> schemas.V2Ready:
    """Return whether a version is ready."""
    return _is_ready(models, name, version)


@router.post("/v2/models/{name}/infer", **_INFER)
async def infer(models: ModelsOf, request: Request, name: str) -> Response:
    """Classify images with the newest version of a model."""
    return await _infer(models, request, name, None)


@router.post("/v2/models/{name}/versions/{version}/infer", **_INFER)
async def infer_by_version(models: ModelsOf, request: Request, name: str, version: str) -> Response:
    """Classify images with one version of a model."""
    return await _infer(models, request, name, version)


def _metadata(models: Models, name: str, version: str | None) -> schemas.V2Metadata:
    versions = models.versions(name)
    served = models.find(name, version)
    classes = len(served.classifier.class_names)
    size = [-1, *served.transform.preprocessing.image_size, served.transform.preprocessing.channels]
    return schemas.V2Metadata(
        name=name,
        versions=[one.version for one in versions],
        platform=f"convnextv2 {served.engine}",
        inputs=[
            {"name": "image_files", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": size},
        ],
        outputs=[
            {"name": "probs", "datatype": "FP32", "shape": [-1, classes]},
            {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]},
        ],
    )


def _config(models: Models, name: str, version: str | None) -> schemas.V2Config:
    described = _metadata(models, name, version)

    def triton(tensor: dict[str, Any]) -> dict[str, Any]:
        kind = {"BYTES": "STRING"}.get(tensor["datatype"], tensor["datatype"])
        dims = tensor["shape"][1:] or [1]  # the batch is not listed
        return {"name": tensor["name"], "data_type": f"TYPE_{kind}", "dims": dims}

    inputs = [
        triton(tensor) | {"optional": True} for tensor in described.inputs
    ]  # a request has one of them
    return schemas.V2Config(
        name=name,
        platform=described.platform,
        backend="convnextv2",
        max_batch_size=models.limits.max_images,
        input=inputs,
        output=[triton(tensor) for tensor in described.outputs],
    )


def _is_ready(models: Models, name: str, version: str | None) -> schemas.V2Ready:
    served = models.find(name, version)
    assert served.classifier  # raises a Refusal for a pre-trained model, which has no outputs here
    models.check_open()
    if not served.is_alive:
        raise Refusal(
            503, "model_failed", f"The queue of model {name} has failed and is started again.", 2
        )
    return schemas.V2Ready(ready=True)


async def _infer(models: Models, http: Request, name: str, version: str | None) -> Response:
    models.check_ready()
    async with models.use(name, version) as served:
        class_names = served.classifier.class_names
        models.admission.check(1)  # before the body is read
        request = await read_request(http, MAX_NUMBERS)
        wanted = request.outputs or [
            schemas.V2Wanted(name="probs"),
            schemas.V2Wanted(name="embedding"),
        ]
        counts = [class_count(output) for output in wanted]
        scored = await _score(models, http, served, request.inputs[0])
    found = {
        "probs": np.concatenate([scores.probs for scores in scored]),
        "embedding": np.concatenate([scores.embedding for scores in scored]),
    }
    columns: list[tuple[schemas.V2Wanted, Column]] = [
        (
            output,
            classes_of(found["probs"], class_names, count)
            if count
            else ("FP32", found[output.name]),
        )
        for output, count in zip(wanted, counts, strict=True)
    ]
    return answer(request, name, served.version, columns)


async def _score(
    models: Models, http: Request, served: Served, given: schemas.V2Tensor
) -> list[Scores]:
    """Score the images of a tensor, which holds files or pixels."""
    if given.datatype != {"image_files": "BYTES", "pixels": "UINT8"}[given.name]:
        raise Refusal(400, "bad_datatype", f"input {given.name}: is not of type {given.datatype}.")
    if given.datatype == "UINT8":
        return await score_pixels(http, models, served, given)
    files = _files(given, models)
    if given.shape not in ([len(files)], [len(files), 1]):
        raise Refusal(
            400, "bad_shape", f"shape {given.shape}: expected [{len(files)}], one for each image."
        )
    return [scores for _, scores in await score(http, models, served, files)]


def _files(given: schemas.V2Tensor, models: Models) -> list[tuple[str, bytes]]:
    if given.raw is None:
        return decode_base64(given.data or [], models.limits)
    files = [(f"image {i}", data) for i, data in enumerate(elements(given.raw, models.limits))]
    if not files:
        raise Refusal(400, "no_image", "There is no image in the body.")
    return files
