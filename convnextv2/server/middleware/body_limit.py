"""Refuse bodies that are too long, too many or too slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal


class _Refused(Exception):
    """Stops the application from reading the body.

    It is deliberately not a `Refusal`: this middleware sends and counts the response, so the
    application's handlers must not.
    """


class LimitBody:
    """ASGI middleware that limits bodies, so that the application need not check their size.

    It refuses bodies that are too long (413), by their Content-Length or by the bytes that arrive,
    bodies that arrive too slowly (408), and bodies that would take too much memory together with
    those of other requests (429).

    Args:
        app: The application.
        limits: The server's limits.
        answer: Sends a refusal to a request, given its path.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, answer: Callable[[Refusal, str, Send], Awaitable[None]]
    ) -> None:
        self.app, self.limits, self.answer = app, limits, answer
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._judge_length(dict(scope["headers"]).get(b"content-length", b"0"))
        if refusal is None:
            body = _Body(self, receive)
            answer = _Answer(send, body)
            try:
                await self.app(scope, body.receive, answer.send)
            except Exception:
                if answer.has_begun or not body.refusal:
                    raise
            finally:
                self.held -= body.seen
            refusal = None if answer.has_begun else body.refusal
        if refusal:
            await self.answer(refusal, scope.get("path", ""), closing(send))

    def _judge_length(self, length: bytes) -> Refusal | None:
        """Return the refusal of a body by its Content-Length; None if it is accepted."""
        if not length.isdigit():
            return Refusal(400, "bad_request", "Content-Length is not a number.")
        return self.too_long() if int(length) > self.max_bytes else None

    @property
    def max_bytes(self) -> int:
        """The maximum length of a body."""
        return int(self.limits.max_body_mb * 1e6)

    def too_long(self) -> Refusal:
        """Return the refusal of a body that is too long."""
        return Refusal(
            413, "body_too_large", f"The body is longer than {self.limits.max_body_mb:g} MB."
        )


class _Body:
    """The body of one request, counted as it arrives."""

    def __init__(self, limit: LimitBody, receive: Receive) -> None:
        self._limit, self._receive = limit, receive
        self._end = asyncio.get_running_loop().time() + limit.limits.read_timeout_s
        self._is_complete = False
        self.seen = 0
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        if self.refusal:  # a framework may catch the exception and read again
            raise _Refused
        if self._is_complete:  # only the end of the connection can follow
            return await self._receive()
        limits = self._limit.limits
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            self.refusal = Refusal(
                408, "too_slow", f"The body did not arrive within {limits.read_timeout_s:g} s."
            )
            raise _Refused from None
        size = len(message.get("body", b""))
        self.seen, self._limit.held = self.seen + size, self._limit.held + size
        self._is_complete = not message.get("more_body", False)
        if self.seen > self._limit.max_bytes:
            self.refusal = self._limit.too_long()
        elif self._limit.held > limits.max_bodies_mb * 1e6:
            self.refusal = Refusal(
                429,
                "too_many_bodies",
                "Too many requests are being read at once. Try again later.",
                1,
            )
        if self.refusal:
            raise _Refused
        return message


class _Answer:
    """Forwards the response of the application, unless the body was refused before it began."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body = send, body
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if self._body.refusal and not self.has_begun:
            return
        self.has_begun = True
        await self._send(message)


def closing(send: Send) -> Send:
    """Return ASGI's `send` for a response after which the connection is closed.

    The rest of the body is not read, so the connection cannot be used again.
    """

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await send(message)

    return marked
