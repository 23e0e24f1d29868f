"""The outermost steps of every request: its id, its API key, the metrics and the log."""

from __future__ import annotations

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convnextv2.server.access_log import AccessLog, request_id
from convnextv2.server.keys import Keys
from convnextv2.server.models import Models
from convnextv2.server.refusal import CODE_HEADER, GONE, Refusal, send_refusal

_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    b"frame-ancestors 'none'"
)
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", _POLICY)]
_WITH_KEY = ("/v1", "/v2/models", "/v2/repository", "/metrics")


class Guard:
    """ASGI middleware that checks keys, answers HEAD, counts, measures and logs.

    HEAD is answered as GET would be, without the body.

    Args:
        app: The application.
        models: The server's models, which hold the metrics and the state of the server.
        keys: If there are any, a request must have one of them. The page, the health checks, /v2
            itself and /openapi.json need none.
        log: Logs every request.
    """

    def __init__(self, app: ASGIApp, models: Models, keys: Keys, log: AccessLog) -> None:
        self.app, self.models, self.keys, self.log = app, models, keys, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics, began = self.models.metrics, perf_counter()
        headers = dict(scope["headers"])
        answer = _Answer(
            send,
            request_id(headers.get(b"x-request-id", b"")),
            scope["method"] == "HEAD",
            self.models,
        )
        inner = {**scope, "method": "GET"} if answer.is_head else scope
        metrics.in_flight.inc()
        try:
            if self._wants_key(scope["path"]) and not self.keys.accept(headers):
                metrics.rejected.labels("unauthorized").inc()
                await send_refusal(
                    _unauthorized(b"authorization" in headers), scope["path"], answer.send
                )
            else:
                await self.app(inner, receive, answer.send)
        finally:
            metrics.in_flight.dec()
            route = getattr(inner.get("route"), "path", "other")
            status, seconds = answer.status or GONE, perf_counter() - began
            metrics.requests.labels(route, str(status)).inc()
            metrics.answered.labels(route, str(status)).observe(seconds)
            self.log(scope, id=answer.id, status=status, code=answer.code, seconds=seconds)

    def _wants_key(self, path: str) -> bool:
        return self.keys.are_required and path.startswith(_WITH_KEY)


class _Answer:
    """Forwards a response with the headers of every response, and records its status and code."""

    def __init__(self, send: Send, id: str, is_head: bool, models: Models) -> None:
        self._send, self._models = send, models
        self.id, self.is_head = id, is_head
        self.status, self.code = 0, ""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", []))
            self.code = dict(given).get(CODE_HEADER.lower().encode(), b"").decode()
            more = [*_HEADERS, (b"x-request-id", self.id.encode())]
            if self._models.is_draining:  # the connection will be closed
                more.append((b"connection", b"close"))
            message["headers"] = [*given, *more]
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)


def _unauthorized(is_given: bool) -> Refusal:
    """Return the refusal of a request without a valid key.

    Args:
        is_given: Whether the request has a token. Only then is the error named (RFC 6750, 3).
    """
    challenge = 'Bearer realm="convnextv2"' + (', error="invalid_token"' if is_given else "")
    return Refusal(
        401,
        "unauthorized",
        "The API key is missing or wrong.",
        more_headers={"WWW-Authenticate": challenge},
    )
