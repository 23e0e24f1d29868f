"""KServe's model repository extension: list models, and load one again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from convnextv2.server import schemas
from convnextv2.server.bodies import INDEX_BODY, LOAD_BODY, validated
from convnextv2.server.refusal import Refusal
from convnextv2.server.routes.dependencies import ModelsOf

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: schemas.V2_REFUSALS[status] for status in (400, 401, 404, 422)
}
_BODY_REFUSALS = _REFUSALS | {status: schemas.V2_REFUSALS[status] for status in (408, 413, 429)}
_RELOAD_REFUSALS: dict[int | str, dict[str, Any]] = _BODY_REFUSALS | {
    403: {
        "model": schemas.V2Error,
        "description": "The server has no API key, so anybody could request this.",
    },
    503: schemas.V2_REFUSALS[503],
}
_MAX_VALUES = 100

router = APIRouter(tags=["kserve v2"])


@router.post("/v2/repository/index", responses=_BODY_REFUSALS, openapi_extra=INDEX_BODY)
async def index(models: ModelsOf, request: Request) -> list[schemas.V2Indexed]:
    """List all versions of all classifiers."""
    body = await request.body()
    only_ready = bool(body) and validated(schemas.V2IndexRequest, body, _MAX_VALUES, "values").ready
    found = []
    for name in models.names:
        for served in models.versions(name):
            is_ready = models.is_ready and served.is_alive
            if served.scorer and (is_ready or not only_ready):
                reason = "" if is_ready else "it is being loaded, or its queue has failed"
                found.append(
                    schemas.V2Indexed(
                        name=name,
                        version=served.version,
                        state="READY" if is_ready else "UNAVAILABLE",
                        reason=reason,
                    )
                )
    return found


@router.post(
    "/v2/repository/models/{name}/load", responses=_RELOAD_REFUSALS, openapi_extra=LOAD_BODY
)
async def load(models: ModelsOf, request: Request, name: str) -> schemas.V2Loaded:
    """Load a model again from its source, as SIGHUP does for all models.

    The response contains the outcome. Only a server with an API key allows this.
    """
    if not request.app.state.keys.are_required:
        raise Refusal(
            403,
            "no_api_key",
            "Models are loaded again by SIGHUP, or here if the server has an API key.",
        )
    models.check_ready()
    body = await request.body()
    if body and validated(schemas.V2LoadRequest, body, _MAX_VALUES, "values").parameters:
        raise Refusal(
            400,
            "unsupported",
            "parameters: a model is loaded from its source as it is. Leave them out.",
        )
    models.versions(name)
    changes = await models.reload(name)
    for change in changes:
        print(change.text, flush=True)
    if failed := [change.text for change in changes if change.failed]:
        raise Refusal(400, "not_loaded", " ".join(" ".join(failed).split())[:1000])
    return schemas.V2Loaded(name=name, changes=[change.text for change in changes])


@router.post("/v2/repository/models/{name}/unload", responses=_REFUSALS)
async def unload(models: ModelsOf, name: str) -> schemas.V2Loaded:
    """Always refused: the models that are served are chosen when the server is started."""
    models.versions(name)
    raise Refusal(
        400,
        "unsupported",
        "Models are not unloaded: those that are served are chosen when the server is started.",
    )
