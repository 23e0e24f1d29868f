"""Build the ASGI application: its routes, and the middleware before them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version as version_of

from fastapi import FastAPI
from starlette.types import ASGIApp, Send

from convnextv2.server.access_log import AccessLog
from convnextv2.server.keys import Keys
from convnextv2.server.middleware.body_limit import LimitBody
from convnextv2.server.middleware.cors import Cors
from convnextv2.server.middleware.guard import Guard
from convnextv2.server.middleware.linger import Linger
from convnextv2.server.models import Models
from convnextv2.server.notify import notify
from convnextv2.server.refusal import CODE_HEADER, Refusal, handle_errors, send_refusal
from convnextv2.server.routes import ROUTERS
from convnextv2.server.tensors import LENGTH_HEADER

_DESCRIPTION = (
    "Image classification, detection and segmentation by ConvNeXt V2. Every error has the same "
    f"body and a stable code, which is also in the header {CODE_HEADER}. Under /v2 the body is "
    "that of KServe's protocol."
)


def build_app(
    models: Models,
    *,
    keys: Keys | None = None,
    cors_origins: Sequence[str] = (),
    access_log: str = "failed",
) -> ASGIApp:
    """Build the ASGI application that serves models.

    Args:
        models: The models.
        keys: If there are any, requests need one in `Authorization: Bearer` or `X-API-Key`; see
            `Guard` for the paths.
        cors_origins: The origins of the pages that may call the server.
        access_log: The requests that are logged; see `AccessLog`.

    Returns:
        The application. It warms up the models when it starts, and answers health checks meanwhile.
    """
    keys = keys or Keys()
    app = FastAPI(
        title="convnextv2",
        version=version_of("convnextv2"),
        description=_DESCRIPTION,
        lifespan=_lifespan_of(models),
        docs_url=None,  # these pages load their scripts from other servers
        redoc_url=None,
    )
    app.state.models, app.state.keys = models, keys
    for router in ROUTERS:
        app.include_router(router)

    def count(code: str) -> None:
        models.metrics.rejected.labels(code).inc()

    async def refuse(refusal: Refusal, path: str, send: Send) -> None:
        count(refusal.code)
        await send_refusal(refusal, path, send)

    handle_errors(app, count)
    limited = LimitBody(app, models.limits, refuse)
    guarded = Guard(limited, models, keys, AccessLog(access_log))
    lingering = Linger(guarded, models.limits.read_timeout_s)
    if not cors_origins:
        return lingering
    return Cors(
        lingering,
        allow_origins=list(cors_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=("Retry-After", "X-Request-ID", CODE_HEADER, LENGTH_HEADER),
    )


def _lifespan_of(models: Models) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return the lifespan of the application: what it does when it starts and when it ends."""

    def warmed_up(warm_up: asyncio.Task[None]) -> None:
        if warm_up.cancelled():
            return
        if error := warm_up.exception():
            models.failure = error
            signal.raise_signal(signal.SIGTERM)
        else:
            notify("READY=1")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(models.start())  # health checks are answered meanwhile
        warm_up.add_done_callback(warmed_up)
        yield
        warm_up.cancel()  # a warm-up that has not finished is not needed any more
        await asyncio.wait([warm_up])
        await models.stop()

    return lifespan
