"""The application: routes, and what every request goes through."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from convnextv2.deploy.predictor import top
from convnextv2.deploy.scorer import Scores
from convnextv2.deploy.serve import schemas
from convnextv2.deploy.serve.batcher import late
from convnextv2.deploy.serve.limits import ASGIApp, LimitBody, Message, Receive, Refusal, Send
from convnextv2.deploy.serve.store import Prepared, Served, Store

_PAGE = Path(__file__).with_name("page")
_POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'"

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody, "description": why}
    for status, why in (
        (400, "The request cannot be understood."),
        (401, "The API key is missing or wrong."),
        (404, "There is no such model or version."),
        (408, "The body came too slowly."),
        (413, "The body, the number of images or an image is too large."),
        (415, "What was sent is no image that is read here, or of another content type."),
        (422, "A parameter has a wrong value."),
        (429, "Too much is waiting. Retry-After says when to come again."),
        (503, "Not ready, shutting down, or no answer within the deadline. Retry-After says when to come again."),
    )
}

_IMAGES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {"schema": schemas.ImagesJson.model_json_schema()},
        },
    }
}
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def build_app(store: Store, *, api_key: str = "", cors_origins: Sequence[str] = ()) -> ASGIApp:
    """The ASGI application that serves these models.

    api_key: asked for in `Authorization: Bearer` or `X-API-Key` where it is not empty, but for the page and the health checks.
    cors_origins: whose pages may call."""
    metrics, limits = store.metrics, store.limits

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warm_up = asyncio.create_task(store.start())  # health checks are answered meanwhile
        warm_up.add_done_callback(_end_where_it_failed)
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

    def check_open() -> None:
        _check_ready(store)
        if store.is_draining:
            raise Refusal(503, "shutting_down", "The server is shutting down. Ask another one.", 2)

    @app.get("/readyz", tags=["server"], responses={503: _REFUSALS[503]})
    async def readyz() -> schemas.Status:
        """Models are loaded and warmed up, and the server is not shutting down."""
        check_open()
        return schemas.Status(status="ready")

    @app.get("/metrics", tags=["server"], responses={401: _REFUSALS[401]}, response_class=Response)
    async def read_metrics() -> Response:
        """For Prometheus."""
        metrics.queue.set(store.queue.waiting)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ---- our own paths ----

    some: dict[int | str, dict[str, Any]] = {status: _REFUSALS[status] for status in (401, 404)}

    @app.get("/v1/models", tags=["models"], responses={401: _REFUSALS[401]})
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
        _check_ready(store)
        async with store.use(name, version) as served:
            _check_classifier(served)
            files = await _files(request, store)
            images = []
            for (title, _), (prepared, scores) in zip(files, await _score(store, served, files), strict=True):
                assert served.scorer is not None
                best = top(scores.probs[0], served.scorer.class_names, top_k)
                found: dict[str, Any] = {"image": title, "predictions": [p for p in best if p["prob"] >= threshold]}
                if embedding:
                    found["embedding"] = scores.embedding[0].tolist()
                if explanation:
                    found["explanation"] = {"map": scores.explanation[0].tolist(), "seen": prepared.seen}
                images.append(found)
        return JSONResponse({"model": name, "version": served.spec.version, "images": images})

    top_k_query = Query(5, ge=1, le=1000, description="How many classes of each image.")
    threshold_query = Query(0.0, ge=0, le=1, description="Leave out classes that are less probable.")
    embedding_query = Query(False, description="Return the pooled features, too.")
    explanation_query = Query(False, description="Return the class activation map of the most probable class, too.")
    predict_form: dict[str, Any] = {
        "tags": ["models"],
        "responses": _REFUSALS,
        "response_model": schemas.PredictResponse,
        "openapi_extra": _IMAGES_BODY,
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

    @app.post("/v1/models/{name}/reconstruct", tags=["models"], responses=_REFUSALS, openapi_extra=_IMAGE_BODY)
    async def reconstruct(
        request: Request,
        name: str,
        mask_ratio: float = Query(0.6, gt=0, lt=1, description="Share of the tiles that is hidden."),
        seed: int = Query(0, ge=0, le=2**31, description="Of the choice of tiles."),
    ) -> schemas.ReconstructResponse:
        """What a pre-trained model makes of the image of the body, of which it sees some tiles only."""
        _check_ready(store)
        async with store.use(name) as served:
            if served.reconstructor is None:
                raise Refusal(404, "not_pretrained", f"Model {name} is a classifier, which cannot reconstruct.")
            files = await _files(request, store)
            if len(files) != 1:
                raise Refusal(400, "bad_request", f"{len(files)} images. Expected one.")
            loop = asyncio.get_running_loop()
            store.queue.take(1)
            try:
                async with asyncio.timeout(limits.deadline_s):
                    prepared = await loop.run_in_executor(
                        store.decoders, store.prepare, files[0][1], files[0][0], served.transform
                    )
                    masked, made = await loop.run_in_executor(
                        store.engine, served.reconstructor, prepared.pixels, mask_ratio, seed
                    )
            except TimeoutError:
                raise late(limits) from None
            finally:
                store.queue.give_back(1)
        return schemas.ReconstructResponse(
            model=name, version=served.spec.version, masked=masked, reconstruction=made, seen=prepared.seen
        )

    # ---- KServe's inference protocol, version 2 ----

    @app.get("/v2", tags=["kserve v2"])
    async def v2_server() -> schemas.V2Server:
        """What this server is."""
        return schemas.V2Server(name="convnextv2", version=version_of("convnextv2"), extensions=[])

    @app.get("/v2/health/live", tags=["kserve v2"])
    async def v2_live() -> schemas.V2Live:
        """As /healthz."""
        return schemas.V2Live(live=True)

    @app.get("/v2/health/ready", tags=["kserve v2"], responses={503: _REFUSALS[503]})
    async def v2_ready() -> schemas.V2Ready:
        """As /readyz."""
        check_open()
        return schemas.V2Ready(ready=True)

    @app.get("/v2/models/{name}", tags=["kserve v2"], responses=some)
    async def v2_metadata(name: str) -> schemas.V2Metadata:
        """Inputs and outputs of a model."""
        versions = store.versions(name)
        served = versions[-1]
        size = [-1, *served.transform.image_size, served.transform.channels]
        _check_classifier(served)
        assert served.scorer is not None
        return schemas.V2Metadata(
            name=name,
            versions=[one.spec.version for one in versions],
            platform=f"convnextv2 {served.engine}",
            inputs=[
                {"name": "image_files", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "UINT8", "shape": size},
            ],
            outputs=[
                {"name": "probs", "datatype": "FP32", "shape": [-1, len(served.scorer.class_names)]},
                {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]},
            ],
        )

    @app.get("/v2/models/{name}/ready", tags=["kserve v2"], responses=some | {503: _REFUSALS[503]})
    async def v2_model_ready(name: str) -> schemas.V2Ready:
        """Whether a model answers."""
        store.versions(name)
        check_open()
        return schemas.V2Ready(ready=True)

    async def v2_answer(request: schemas.V2Request, name: str, version: str | None) -> schemas.V2Response:
        _check_ready(store)
        async with store.use(name, version) as served:
            _check_classifier(served)
            given = request.inputs[0]
            if given.datatype == "BYTES":
                files = _decode_base64(given.data, store)
                if given.shape not in ([len(files)], [len(files), 1]):
                    raise Refusal(400, "bad_shape", f"shape {given.shape}: expected [{len(files)}], one for each image.")
                scored = [scores for _, scores in await _score(store, served, files)]
            else:
                scored = await _score_pixels(store, served, given)
        return schemas.V2Response(
            id=_plain(request.id),
            model_name=name,
            model_version=served.spec.version,
            outputs=[
                _v2_output("probs", [scores.probs for scores in scored]),
                _v2_output("embedding", [scores.embedding for scores in scored]),
            ],
        )

    @app.post("/v2/models/{name}/infer", tags=["kserve v2"], responses=_REFUSALS)
    async def v2_infer(request: schemas.V2Request, name: str) -> schemas.V2Response:
        """Classify by the newest version."""
        return await v2_answer(request, name, None)

    @app.post("/v2/models/{name}/versions/{version}/infer", tags=["kserve v2"], responses=_REFUSALS)
    async def v2_infer_by_version(request: schemas.V2Request, name: str, version: str) -> schemas.V2Response:
        """Classify by a certain version."""
        return await v2_answer(request, name, version)

    # ---- the page ----

    for path, file in (("/", "index.html"), ("/page/app.js", "app.js"), ("/page/style.css", "style.css")):
        app.add_api_route(path, _send_file(_PAGE / file), include_in_schema=False)

    async def refuse(refusal: Refusal, send: Send) -> None:
        metrics.rejected.labels(refusal.code).inc()
        await _send_refusal(refusal, send)

    _handle_errors(app, store)
    guarded: ASGIApp = _Guard(LimitBody(app, limits, refuse), store, api_key)
    if cors_origins:
        guarded = CORSMiddleware(guarded, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
    return guarded


def _end_where_it_failed(warm_up: asyncio.Task[None]) -> None:
    if not warm_up.cancelled() and (error := warm_up.exception()):
        print(f"A model does not run: {error}", flush=True)
        signal.raise_signal(signal.SIGTERM)


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
        except ClientDisconnect:  # while it sent its body
            pass
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
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        store.metrics.rejected.labels("invalid_value").inc()
        return JSONResponse(Refusal(422, "invalid_value", f"{where}: {first['msg']}").body(), 422)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return JSONResponse(Refusal(error.status_code, code, str(error.detail)).body(), error.status_code, error.headers)

    async def on_bug(request: Request, error: Exception) -> Response:
        refusal = Refusal(500, "internal_error", "The server has failed on this request; its log says more.")
        return JSONResponse(refusal.body(), refusal.status)

    app.add_exception_handler(Exception, on_bug)
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


def _check_ready(store: Store) -> None:
    if not store.is_ready:
        raise Refusal(503, "not_ready", "The server is starting or shutting down. Try again later.", 2)


def _check_classifier(served: Served) -> None:
    if served.scorer is None:
        raise Refusal(
            404, "not_a_classifier", f"Model {served.spec.name} is pre-trained only: it reconstructs, and has no classes."
        )


def _describe(served: Served) -> schemas.ModelVersion:
    scorer, transform = served.scorer, served.transform
    return schemas.ModelVersion(
        version=served.spec.version,
        engine=served.engine,
        sha256=served.sha256,
        kind="classifier" if scorer else "pre-trained",
        image_size=transform.image_size,
        class_names=scorer.class_names if scorer else [],
        preprocessing=dict(vars(transform)),
        notes=scorer.notes if scorer else [],
        certificate=dict(scorer.certificate) if scorer else {},
    )


async def _files(request: Request, store: Store) -> list[tuple[str, bytes]]:
    """Names and contents of the images in a request's body, whatever its form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    most = store.limits.max_images
    if kind == "multipart/form-data":
        try:
            async with request.form(max_files=most, max_fields=0, max_part_size=int(store.limits.max_body_mb * 1e6)) as form:
                uploads = [part for _, part in form.multi_items() if not isinstance(part, str)]
                files = [(_plain(part.filename or f"image {i}")[:200], await part.read()) for i, part in enumerate(uploads)]
        except (UnicodeError, LookupError):  # of a charset that the request names
            raise Refusal(400, "bad_request", "The multipart body cannot be read: its text is of no known encoding.") from None
        except (MultiPartException, HTTPException) as error:
            detail = str(getattr(error, "detail", "") or getattr(error, "message", ""))
            if "Too many files" in detail:
                raise Refusal(413, "too_many_images", f"More than {most} images. Send them in several requests.") from None
            raise Refusal(400, "bad_request", f"The multipart body cannot be read: {detail[:200]}") from None
    elif kind == "application/json":
        try:
            parsed = schemas.ImagesJson.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise Refusal(422, "invalid_value", f"{where[:200]}: {first['msg'][:200]}") from None
        files = _decode_base64(parsed.images, store)
    elif kind in ("application/octet-stream", "application/x-www-form-urlencoded", "") or kind.startswith("image/"):
        body = await request.body()  # by its content; curl calls a posted file a form
        files = [("image 0", body)] if body else []
    else:
        raise Refusal(
            415, "content_type", f"Content-Type {kind[:100]!r}: expected an image, multipart/form-data or application/json."
        )
    if not files:
        raise Refusal(400, "no_image", "There is no image in the body.")
    return files


def _plain(text: str) -> str:
    """Without the halves of characters that JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _decode_base64(texts: Sequence[Any], store: Store) -> list[tuple[str, bytes]]:
    if len(texts) > store.limits.max_images:
        raise Refusal(
            413, "too_many_images", f"{len(texts)} images, {store.limits.max_images} may be in a request. Send several requests."
        )
    files = []
    for i, text in enumerate(texts):
        try:
            files.append((f"image {i}", base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError, TypeError):
            raise Refusal(400, "bad_base64", f"image {i}: is not base64.") from None
    if not files:
        raise Refusal(400, "no_image", "There is no image in the body.")
    return files


async def _score(store: Store, served: Served, files: Sequence[tuple[str, bytes]]) -> list[tuple[Prepared, Scores]]:
    """Decode, wait for the model, score; all images of a request or none."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + store.limits.deadline_s
    batcher = served.batcher
    assert batcher is not None

    async def one(name: str, data: bytes) -> tuple[Prepared, Scores]:
        prepared = await loop.run_in_executor(store.decoders, store.prepare, data, name, served.transform)
        return prepared, await batcher(prepared.pixels, deadline)

    return await _together(store, deadline, [one(name, data) for name, data in files])


async def _score_pixels(store: Store, served: Served, given: schemas.V2Tensor) -> list[Scores]:
    """The same for pixels that come at the model's size."""
    size = [*served.transform.image_size, served.transform.channels]
    if given.shape[1:] != size or not 1 <= given.shape[0] <= store.limits.max_images:
        raise Refusal(
            400,
            "bad_shape",
            f"shape {given.shape}: expected [N, {size[0]}, {size[1]}, {size[2]}], N at most {store.limits.max_images}.",
        )
    try:
        pixels = torch.tensor(given.data)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        raise Refusal(400, "bad_data", "data: expected whole numbers from 0 to 255.") from None
    if (
        pixels.dtype != torch.int64
        or pixels.numel() != torch.Size(given.shape).numel()
        or bool(((pixels < 0) | (pixels > 255)).any())
    ):
        raise Refusal(400, "bad_data", f"data: expected {torch.Size(given.shape).numel()} whole numbers from 0 to 255.")
    images = pixels.to(torch.uint8).view(given.shape).permute(0, 3, 1, 2)
    deadline = asyncio.get_running_loop().time() + store.limits.deadline_s
    assert served.batcher is not None
    return await _together(store, deadline, [served.batcher(image, deadline) for image in images])


async def _together(store: Store, deadline: float, works: list[Any]) -> list[Any]:
    """Await all works, in their order, within the deadline, as images of the queue; where one fails, or the client leaves,
    none goes on."""
    try:
        store.queue.take(len(works))
    except Refusal:
        for work in works:
            work.close()
        raise
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        async with asyncio.timeout_at(deadline):
            return list(await asyncio.gather(*tasks))
    except TimeoutError:
        raise late(store.limits) from None
    finally:
        for task in tasks:
            task.cancel()
        store.queue.give_back(len(tasks))


def _v2_output(name: str, rows: list[Any]) -> schemas.V2Output:
    return schemas.V2Output(
        name=name,
        shape=[len(rows), rows[0].shape[-1]],
        datatype="FP32",
        data=[value for row in rows for value in row[0].tolist()],
    )
