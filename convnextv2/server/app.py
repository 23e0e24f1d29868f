"""The application: its routes, and what stands before them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of

from fastapi import FastAPI
from starlette.types import ASGIApp, Send

from convnextv2.server.access_log import AccessLog
from convnextv2.server.keys import Keys
from convnextv2.server.middleware.body_limit import LimitBody
from convnextv2.server.middleware.cors import Cors
from convnextv2.server.middleware.guard import Guard
from convnextv2.server.middleware.linger import Linger
from convnextv2.server.models import Store
from convnextv2.server.notify import notify
from convnextv2.server.refusal import CODE_HEADER, Refusal, handle_errors, send_refusal
from convnextv2.server.routes import health, kserve, models, page, repository
from convnextv2.server.tensors import LENGTH_HEADER


def build_app(
    store: Store,
    *,
    keys: Keys | None = None,
    cors_origins: Sequence[str] = (),
    access_log: str = "failed",
) -> ASGIApp:
    """The ASGI application that serves models.

    Args:
        store: The models.
        keys: Asked for in `Authorization: Bearer` or `X-API-Key` where there are any; see `Guard` for which paths.
        cors_origins: Whose pages may call.
        access_log: Key of `access_log.KINDS`.

    Returns:
        The application. It warms the models up when it starts, and answers health checks meanwhile.
    """
    keys = keys or Keys()
    app = FastAPI(
        title="convnextv2",
        version=version_of("convnextv2"),
        description="Image classification by ConvNeXt V2. Every error has the same body and a stable code, which the header "
        f"{CODE_HEADER} has, too; under /v2 the body is that of KServe's protocol.",
        lifespan=_life_of(store),
        docs_url=None,  # these pages take their scripts from elsewhere
        redoc_url=None,
    )
    app.state.store, app.state.keys = store, keys
    for routes in (health, models, kserve, repository, page):
        app.include_router(routes.router)

    def count(code: str) -> None:
        store.metrics.rejected.labels(code).inc()

    async def refuse(refusal: Refusal, path: str, send: Send) -> None:
        count(refusal.code)
        await send_refusal(refusal, path, send)

    handle_errors(app, count)
    limited = LimitBody(app, store.limits, refuse)
    guarded: ASGIApp = Linger(
        Guard(limited, store, keys, AccessLog(access_log)), store.limits.read_timeout_s
    )
    if cors_origins:
        shown = ("Retry-After", "X-Request-ID", CODE_HEADER, LENGTH_HEADER)
        guarded = Cors(
            guarded,
            allow_origins=list(cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=shown,
        )
    return guarded


def _life_of(store: Store):  # type: ignore[no-untyped-def]  # FastAPI's own type names private things
    def warmed_up(warm_up: asyncio.Task[None]) -> None:
        if warm_up.cancelled():
            return
        if error := warm_up.exception():
            store.failure = error
            signal.raise_signal(signal.SIGTERM)
        else:
            notify("READY=1")

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(store.start())  # health checks are answered meanwhile
        warm_up.add_done_callback(warmed_up)
        yield
        warm_up.cancel()  # if it is not done: nobody waits for a model that will not be asked
        await asyncio.wait([warm_up])
        await store.stop()

    return life
