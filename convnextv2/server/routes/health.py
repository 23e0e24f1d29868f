"""Health checks and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from convnextv2.server import schemas
from convnextv2.server.routes.dependencies import ModelsOf

router = APIRouter(tags=["server"])


@router.get("/healthz")
async def healthz() -> schemas.Status:
    """Return that the process is alive."""
    return schemas.Status(status="ok")


@router.get("/readyz", responses={503: schemas.REFUSALS[503]})
async def readyz(models: ModelsOf) -> schemas.Status:
    """Return whether all models are warmed up and the server is not shutting down."""
    models.check_open()
    return schemas.Status(status="ready")


@router.get("/metrics", responses={401: schemas.REFUSALS[401]}, response_class=Response)
async def read_metrics(models: ModelsOf) -> Response:
    """Return the metrics in Prometheus's text format."""
    models.metrics.queue.set(models.admission.waiting)
    return Response(models.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
