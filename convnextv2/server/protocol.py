"""One connection: upgrades that are not taken, and clients that would hold it open forever.

uvicorn documents none of what is overridden or read here. tests/server/test_uvicorn.py names each
part, so that a new version of uvicorn that lacks one fails there.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Collection
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from convnextv2.server.refusal import malformed_request

KEEP_ALIVE_S = 30
"""How long a connection may stay open between two requests, in seconds."""

_MAX_PIPELINED = 100
"""How many requests of a connection may wait while one is being answered (pipelining).

Each of them holds a few kilobytes, and one small packet can bring thousands."""

_MAX_HEAD_BYTES = 1 << 16
"""The longest head of a request in bytes, not counting the first packet."""

_MIN_READ_BYTES = 1 << 16
"""How many bytes of its answer a client has to take within `timeout_s`."""


class _Flow(FlowControl):
    """Flow control that reads nothing while requests of the connection wait.

    uvicorn resumes reading after each answer. A client that sends requests and never reads an
    answer would thus make the server hold more and more of what it sends.

    Args:
        transport: The connection.
        waiting: The requests that wait behind the one that is being answered.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Collection[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Resume only if no request waits."""
        if not self._waiting:
            super().resume_reading()


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol for clients that cannot be trusted to read or to finish.

    It cuts off three kinds of clients: those that do not finish the head of a request in time,
    those that do not take their answer, and those that ask for much more than they have been
    answered. uvicorn waits for the first two forever.
    """

    timeout_s: float
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _heard_all = False
    _is_in_head = False
    _head_bytes = 0
    _running: Any = None
    _framing = b""
    _is_replaying = False

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the head of the first request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and cut the client off if it asks for too much."""
        was_in_head = self._is_in_head
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        self._head_bytes = self._head_bytes + len(data) if was_in_head and self._is_in_head else 0
        if len(self.pipeline) > _MAX_PIPELINED or self._head_bytes > _MAX_HEAD_BYTES:
            self.pipeline.clear()
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        """Parse bytes of the connection, and ignore any offer to upgrade it.

        A request that offers an upgrade, as Java's client offers HTTP/2, is answered as if it did
        not (RFC 9110, 7.8). The parser however takes such a request for complete, and its body for
        another protocol. A new parser goes on with the body and with what follows; all that it is
        told of the request is how its body is framed.

        Args:
            data: What has come.

        Raises:
            httptools.HttpParserError: It is not HTTP.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            rest = data[stopped.args[0] :]
            framing, self._framing = self._framing, b""
            self.parser = httptools.HttpRequestParser(self)
            if framing:
                self._is_replaying = True
                self.parser.feed_data(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n")
                self._is_replaying = False
            if rest:
                self._feed(rest)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the form that all errors have."""
        self.transport.write(malformed_request())
        self._cut()

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        if not self._is_replaying:
            self._is_in_head, self._framing = True, b""
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Pass the address on, unless a head is being replayed to a new parser."""
        if not self._is_replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the headers that frame the body, for a new parser."""
        if self._is_replaying:
            return
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framing += name + b": " + value + b"\r\n"
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop to wait for the head."""
        if self._is_replaying:
            return
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Pass the end of a request on, unless its body still comes after an offer to upgrade."""
        if not (self.parser.should_upgrade() and self._framing):
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn lets its transport close
        """Keep the connection of a client that has sent everything: it may still listen.

        Returns:
            Whether the transport stays open. It closes if the client broke off within a request,
            and under TLS, which has no half-closed connections.
        """
        self._heard_all = self._is_answering() and not self.cycle.more_body
        return self._heard_all and self.transport.get_extra_info("sslcontext") is None

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take its last answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()
        elif self._is_answering():  # the next request had come already
            return
        elif self._heard_all:
            self._cut()
        else:
            self._await_head(KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        """Start to watch a client that does not read as fast as it is answered."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stop to watch it."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def shutdown(self) -> None:
        """Wait for the client to take its last answer, but not forever."""
        super().shutdown()
        if self.transport.is_closing():
            self._await_reader()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered that its client has left.

        uvicorn tells only the last request that has come, which may be one that waits behind it.
        """
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return bool(self.cycle and not self.cycle.response_complete)

    def _await_head(self, more_s: float = 0) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.timeout_s + more_s, self._cut)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        self.transport.close()
        self._await_reader()

    def _await_reader(self) -> None:
        if self._unread is None:
            self._unread = self.loop.call_later(
                self.timeout_s, self._check_reader, self.transport.get_write_buffer_size()
            )

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _check_reader(self, before: int) -> None:
        """Reset the connection if the client has taken too little of its answer.

        Args:
            before: How many bytes were left to write when the client began to be watched.
        """
        self._unread = None
        left = self.transport.get_write_buffer_size()
        if left > max(0, before - _MIN_READ_BYTES):
            # A plain close would leave the operating system waiting for such a client for minutes,
            # with everything that was written.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif left:
            self._await_reader()
