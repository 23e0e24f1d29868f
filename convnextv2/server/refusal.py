"""Refusals, and the error responses that are made of them.

Every error has the same body, except under /v2, where KServe's protocol sets the form. The status
429 is decided in `admission` (images that wait) and `middleware.body_limit` (bodies that are read).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Send

CODE_HEADER = "X-Error-Code"
"""The header with the code of a refusal, which is also sent if the body has no field for it."""

GONE = 499
"""The status of a request whose client disconnected before the answer, as in nginx."""


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        code: The reason, for programs. It stays the same between versions.
        message: The reason, in words.
        retry_after_s: The seconds after which a retry may help; None if it cannot.
        more_headers: Further headers of this response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after_s: int | None = None,
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after_s, self.more_headers = retry_after_s, more_headers

    def body(self) -> dict[str, dict[str, str]]:
        """Return the JSON of the error, in the form of all paths outside /v2."""
        return {"error": {"code": self.code, "message": self.message}}

    def headers(self) -> dict[str, str]:
        """Return the header Retry-After if a retry may help, and the further headers."""
        retry = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return retry | dict(self.more_headers)


def body_of(refusal: Refusal, path: str) -> dict[str, Any]:
    """Return the JSON of an error.

    Args:
        refusal: The error.
        path: The path of the request. Under /v2, `error` is a string, because clients of KServe
            print it.
    """
    is_kserve = path == "/v2" or path.startswith("/v2/")
    return {"error": refusal.message} if is_kserve else refusal.body()


def answer_of(refusal: Refusal, path: str) -> JSONResponse:
    """Return the whole response of an error; see `body_of`."""
    return JSONResponse(
        body_of(refusal, path), refusal.status, refusal.headers() | {CODE_HEADER: refusal.code}
    )


async def send_refusal(refusal: Refusal, path: str, send: Send) -> None:
    """Send an error from outside the application, and close the connection.

    Args:
        refusal: The error.
        path: The path of the request.
        send: ASGI's function.
    """
    answer = answer_of(refusal, path)
    headers = [*answer.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def malformed_request() -> bytes:
    """Return the response to input that is not HTTP, with its head."""
    body = json.dumps(
        Refusal(400, "malformed_http", "This is not a valid HTTP request.").body()
    ).encode()
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{CODE_HEADER}: malformed_http\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _routing_message(request: Request, error: HTTPException) -> str:
    """Return the message for a request that no route accepts."""
    asked = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        return f"{asked}: there is no such path. GET /openapi.json lists the paths."
    if error.status_code == 405:
        return f"{asked}: this path takes only {(error.headers or {}).get('Allow', 'GET')}."
    return str(error.detail)


def handle_errors(app: FastAPI, count: Callable[[str], None]) -> None:
    """Turn exceptions that are raised while a request is handled into responses.

    Args:
        app: The application.
        count: Called with the code of every refusal.
    """

    def refused(request: Request, refusal: Refusal) -> Response:
        count(refusal.code)
        return answer_of(refusal, request.url.path)

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refused(request, error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]  # path and query, which it is about, are short
        where = ".".join(str(part) for part in first["loc"])[:200]
        why = first["msg"]
        if first["type"] == "extra_forbidden":
            why = "There is no such parameter. GET /openapi.json lists those of each path."
        return refused(request, Refusal(422, "invalid_value", f"{where}: {why}"))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(
            error.status_code, "bad_request"
        )
        answer = refused(
            request, Refusal(error.status_code, code, _routing_message(request, error))
        )
        for name, value in (error.headers or {}).items():
            answer.headers[name] = f"{value}, HEAD" if name == "Allow" and "GET" in value else value
        return answer

    async def on_disconnect(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)  # which nobody receives

    async def on_bug(request: Request, error: Exception) -> Response:
        # This is not counted, since the exception by which `LimitBody` stops the reading comes here
        # too.
        refusal = Refusal(
            500, "internal_error", "The server has failed on this request; its log says more."
        )
        return answer_of(refusal, request.url.path)

    app.add_exception_handler(Exception, on_bug)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
