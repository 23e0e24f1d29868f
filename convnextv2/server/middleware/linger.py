"""Clients that still send are read from until they know their answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Linger:
    """ASGI middleware that reads on after an answer that came before the end of the body.

    What it reads is thrown away. If a connection is closed while its client still sends, the client
    gets a reset and never learns what the answer was (nginx: lingering_close).

    Args:
        app: The application.
        seconds: How long it reads on at most.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope.get("headers", []))
        has_no_body = (
            headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        )
        # A client that asks first whether to send its body (Expect) sends none if it is refused.
        if scope["type"] != "http" or has_no_body or b"expect" in headers:
            await self.app(scope, receive, send)
            return
        is_complete = False

        async def read() -> Message:
            nonlocal is_complete
            message = await receive()
            is_complete = not message.get("more_body", False)  # true of a disconnect as well
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
