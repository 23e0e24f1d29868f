"""Keep reading from clients that are still sending when they get their response."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Linger:
    """ASGI middleware that reads and discards the rest of a body after an early response.

    If the connection were closed while the client is still sending, the client would get a reset
    and never see the response. nginx calls this lingering_close.

    Args:
        app: The application.
        seconds: The maximum time for which it keeps reading.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope.get("headers", []))
        has_no_body = (
            headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        )
        # A client that sends Expect waits for permission, and sends no body if it is refused.
        if scope["type"] != "http" or has_no_body or b"expect" in headers:
            await self.app(scope, receive, send)
            return
        is_complete = False

        async def read() -> Message:
            nonlocal is_complete
            message = await receive()
            is_complete = not message.get("more_body", False)  # also after a disconnect
            return message

        async def send_then_linger(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_complete or not is_last:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    while not is_complete:
                        await read()
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, read, send_then_linger)
