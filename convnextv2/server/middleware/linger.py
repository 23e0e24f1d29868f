"""A client that still sends gets to know its answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Linger:
    """ASGI middleware: where a request is answered before its body has come, reads on for a while and forgets what comes. A
    connection that is closed on a client while it still sends is reset, and the client never learns what the answer was (nginx:
    lingering_close)."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope.get("headers", []))
        complete = (
            headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        )
        if (
            scope["type"] != "http" or complete or b"expect" in headers
        ):  # who asks first whether to send, sends nothing
            await self.app(scope, receive, send)
            return

        async def noted() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get(
                "more_body", False
            )  # a client that has left says no more, too
            return message

        async def last(message: Message) -> None:
            if (
                complete
                or message["type"] != "http.response.body"
                or message.get("more_body", False)
            ):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    while not complete:
                        await noted()
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, noted, last)
