"""Bodies that are too long, or come too slowly, are refused here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal


class _Refused(Exception):
    """Ends the application's reading. No error that it knows: it must not answer, nor count, what is answered here."""


class LimitBody:
    """ASGI middleware: refuses bodies that are too long (413), by what they say of their length or by what comes, and those that
    come too slowly (408). Nothing behind it has to look.

    answer: sends a refusal to what was asked for at a path."""

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
        most = int(self.limits.max_body_mb * 1e6)
        too_long = Refusal(
            413, "body_too_large", f"The body is longer than {self.limits.max_body_mb:g} MB."
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            refusal = (
                too_long
                if length.isdigit()
                else Refusal(400, "bad_request", "Content-Length is no number.")
            )
            await self.answer(refusal, scope.get("path", ""), closing(send))
            return
        end = asyncio.get_running_loop().time() + self.limits.read_timeout_s
        seen, complete, began = 0, False, False
        refused: Refusal | None = None

        async def counted() -> Message:
            nonlocal seen, complete, refused
            if (
                refused
            ):  # frameworks turn what is raised here into errors of their own, and may ask again
                raise _Refused
            if complete:  # only the end of the connection can follow
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                refused = Refusal(
                    408,
                    "too_slow",
                    f"The body did not arrive within {self.limits.read_timeout_s:g} s.",
                )
                raise _Refused from None
            came = len(message.get("body", b""))
            seen, self.held = seen + came, self.held + came
            complete = not message.get("more_body", False)
            if seen > most:
                refused = too_long
            elif self.held > self.limits.max_bodies_mb * 1e6:
                refused = Refusal(
                    429,
                    "too_many_bodies",
                    "Too many requests are being read at once. Try again later.",
                    1,
                )
            if refused:
                raise _Refused
            return message

        async def noted(message: Message) -> None:
            nonlocal began
            if refused and not began:
                return
            began = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except Exception:
            if began or not refused:
                raise
        finally:
            self.held -= seen
        if refused and not began:
            await self.answer(refused, scope.get("path", ""), closing(send))


def closing(send: Send) -> Send:
    """The same, of an answer after which the connection is closed: nobody reads the rest of its body."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await send(message)

    return marked
