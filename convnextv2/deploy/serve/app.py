"""The application: routes, and what every request goes through."""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from convnextv2.deploy.predictor import top
from convnextv2.deploy.serve import schemas
from convnextv2.deploy.serve.bodies import IMAGE_BODY, IMAGES_BODY, read_images
from convnextv2.deploy.serve.kserve import add_kserve
from convnextv2.deploy.serve.limits import ASGIApp, LimitBody, Linger, Message, Receive, Refusal, Send
from convnextv2.deploy.serve.scoring import score, together
from convnextv2.deploy.serve.store import Prepared, Served, Store

_PAGE = Path(__file__).with_name("page")
_POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'"


def build_app(store: Store, *, api_key: str = "", cors_origins: Sequence[str] = ()) -> ASGIApp:
    """The ASGI application that serves these models.

    api_key: asked for in `Authorization: Bearer` or `X-API-Key` where it is not empty, but for the page and the health checks.
    cors_origins: whose pages may call."""
    metrics, limits = store.metrics, store.limits

    def end_where_it_failed(warm_up: asyncio.Task[None]) -> None:
        if not warm_up.cancelled() and (error := warm_up.exception()):
            store.failure = error
            signal.raise_signal(signal.SIGTERM)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(store.start())  # health checks are answered meanwhile
        warm_up.add_done_callback(end_where_it_failed)
        yield
        await asyncio.wait([warm_up])
        await store.stop()

    app = FastAPI(
        title="convnextv2",
        version=version_of("convnextv2"),
        description="Image classification by ConvNeXt V2. Every error has the same body, and a stable code.",
        lifespan=lifespan,
        docs_url=None,  # these pages take their scripts from elsewhere
        redoc_url=None,
    )

    # ---- the server itself ----

    @app.get("/healthz", tags=["server"])
    async def healthz() -> schemas.Status:
        """The process lives."""
        return schemas.Status(status="ok")

    @app.get("/readyz", tags=["server"], responses={503: schemas.REFUSALS[503]})
    async def readyz() -> schemas.Status:
        """Models are loaded and warmed up, and the server is not shutting down."""
        store.check_open()
        return schemas.Status(status="ready")

    @app.get("/metrics", tags=["server"], responses={401: schemas.REFUSALS[401]}, response_class=Response)
    async def read_metrics() -> Response:
        """For Prometheus."""
        metrics.queue.set(store.queue.waiting)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ---- our own paths ----

    some: dict[int | str, dict[str, Any]] = {status: schemas.REFUSALS[status] for status in (401, 404)}

    @app.get("/v1/models", tags=["models"], responses={401: schemas.REFUSALS[401]})
    async def list_models() -> schemas.ModelList:
        """Names of all models."""
        return schemas.ModelList(models=store.names)

    @app.get("/v1/models/{name}", tags=["models"], responses=some)
    async def describe_model(name: str) -> schemas.ModelInfo:
        """Versions, hashes, classes, preprocessing and certificates of a model."""
        return schemas.ModelInfo(name=name, versions=[_describe(served) for served in store.versions(name)])

    async def answer(
        request: Request, name: str, version: str | None, top_k: int, threshold: float, embedding: bool, explanation: bool
    ) -> Response:
        store.check_ready()
        async with store.use(name, version) as served:
            class_names = served.classifier.class_names
            files = await read_images(request, limits)
            images = []
            for (title, _), (prepared, scores) in zip(files, await score(request, store, served, files), strict=True):
                best = top(scores.probs[0], class_names, top_k)
                found: dict[str, Any] = {"image": title, "predictions": [p for p in best if p["prob"] >= threshold]}
                if embedding:
                    found["embedding"] = scores.embedding[0].tolist()
                if explanation:
                    found["explanation"] = {"map": scores.explanation[0].tolist(), "seen": prepared.seen}
                images.append(found)
        return JSONResponse({"model": name, "version": served.version, "images": images})

    top_k_query = Query(5, ge=1, le=1000, description="How many classes of each image.")
    threshold_query = Query(0.0, ge=0, le=1, description="Leave out classes that are less probable.")
    embedding_query = Query(False, description="Return the pooled features, too.")
    explanation_query = Query(False, description="Return the class activation map of the most probable class, too.")
    predict_form: dict[str, Any] = {
        "tags": ["models"],
        "responses": schemas.REFUSALS,
        "response_model": schemas.PredictResponse,
        "openapi_extra": IMAGES_BODY,
    }

    @app.post("/v1/models/{name}/predict", **predict_form)
    async def predict(
        request: Request,
        name: str,
        top_k: int = top_k_query,
        threshold: float = threshold_query,
        embedding: bool = embedding_query,
        explanation: bool = explanation_query,
    ) -> Response:
        """Classify the images of the body by the newest version: one file as it is, several by multipart, or base64 in JSON."""
        return await answer(request, name, None, top_k, threshold, embedding, explanation)

    @app.post("/v1/models/{name}/versions/{version}/predict", **predict_form)
    async def predict_by_version(
        request: Request,
        name: str,
        version: str,
        top_k: int = top_k_query,
        threshold: float = threshold_query,
        embedding: bool = embedding_query,
        explanation: bool = explanation_query,
    ) -> Response:
        """Classify the images of the body by a certain version."""
        return await answer(request, name, version, top_k, threshold, embedding, explanation)

    @app.post("/v1/models/{name}/reconstruct", tags=["models"], responses=schemas.REFUSALS, openapi_extra=IMAGE_BODY)
    async def reconstruct(
        request: Request,
        name: str,
        mask_ratio: float = Query(0.6, gt=0, lt=1, description="Share of the tiles that is hidden."),
        seed: int = Query(0, ge=0, le=2**31, description="Of the choice of tiles."),
    ) -> schemas.ReconstructResponse:
        """What a pre-trained model makes of the image of the body, of which it sees some tiles only."""
        store.check_ready()
        async with store.use(name) as served:
            model = served.pretrained
            files = await read_images(request, limits)
            if len(files) != 1:
                raise Refusal(400, "bad_request", f"{len(files)} images. Expected one.")
            loop = asyncio.get_running_loop()

            async def work(name: str, data: bytes) -> tuple[Prepared, tuple[str, str]]:
                prepared = await store.prepare(data, name, served.transform)
                return prepared, await loop.run_in_executor(store.engine, model, prepared.pixels, mask_ratio, seed)

            [(prepared, (masked, made))] = await together(request, store, loop.time() + limits.deadline_s, [work(*files[0])])
        return schemas.ReconstructResponse(
            model=name, version=served.version, masked=masked, reconstruction=made, seen=prepared.seen
        )

    add_kserve(app, store)

    # ---- the page ----

    for path, file in (("/", "index.html"), ("/page/app.js", "app.js"), ("/page/style.css", "style.css")):
        app.add_api_route(path, _send_file(_PAGE / file), include_in_schema=False)

    async def refuse(refusal: Refusal, send: Send) -> None:
        metrics.rejected.labels(refusal.code).inc()
        await _send_refusal(refusal, send)

    _handle_errors(app, store)
    guarded: ASGIApp = Linger(_Guard(LimitBody(app, limits, refuse), store, api_key), limits.read_timeout_s)
    if cors_origins:
        guarded = CORSMiddleware(guarded, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
    return guarded


class _Guard:
    """ASGI middleware: the key, the counts, and headers that every answer has."""

    def __init__(self, app: ASGIApp, store: Store, api_key: str) -> None:
        self.app, self.store, self.api_key = app, store, api_key.encode()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics = self.store.metrics
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", _POLICY.encode())]
                if self.store.is_draining:  # so that nobody sends more on a connection that is about to be closed
                    headers.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        metrics.in_flight.inc()
        try:
            if self.api_key and scope["path"].startswith(("/v1", "/v2/models", "/metrics")) and not self._knows(scope):
                metrics.rejected.labels("unauthorized").inc()
                await _send_refusal(Refusal(401, "unauthorized", "The API key is missing or wrong."), noted)
            else:
                await self.app(scope, receive, noted)
        finally:
            metrics.in_flight.dec()
            route = scope.get("route")
            metrics.requests.labels(getattr(route, "path", "other"), str(status or 499)).inc()

    def _knows(self, scope: Any) -> bool:
        headers = dict(scope["headers"])
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return hmac.compare_digest(given, self.api_key)


def _handle_errors(app: FastAPI, store: Store) -> None:
    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        store.metrics.rejected.labels(error.code).inc()
        return JSONResponse(error.body(), error.status, error.headers())

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]  # of a path or a query, which are short
        where = ".".join(str(part) for part in first["loc"])[:200]
        store.metrics.rejected.labels("invalid_value").inc()
        return JSONResponse(Refusal(422, "invalid_value", f"{where}: {first['msg']}").body(), 422)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return JSONResponse(Refusal(error.status_code, code, str(error.detail)).body(), error.status_code, error.headers)

    async def on_leaving(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nginx's number for this, in the metrics: nobody hears it

    async def on_bug(request: Request, error: Exception) -> Response:
        refusal = Refusal(500, "internal_error", "The server has failed on this request; its log says more.")
        return JSONResponse(refusal.body(), refusal.status)

    app.add_exception_handler(Exception, on_bug)
    app.add_exception_handler(ClientDisconnect, on_leaving)
    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


async def _send_refusal(refusal: Refusal, send: Send) -> None:
    body = json.dumps(refusal.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"} | refusal.headers()
    await send(
        {
            "type": "http.response.start",
            "status": refusal.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _send_file(path: Path) -> Any:
    async def send_file() -> FileResponse:
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return send_file


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
        notes=scorer.notes if scorer else [],
        certificate=dict(scorer.certificate) if scorer else {},
    )
