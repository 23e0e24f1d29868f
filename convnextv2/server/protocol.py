"""The HTTP protocol of a connection: upgrades are ignored, and slow clients are cut off.

The parts of uvicorn that are overridden or read here are not documented. They are all named in
tests/server/test_uvicorn.py, which fails with a version of uvicorn that lacks one.
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
"""Seconds for which a connection may stay open between two requests."""

_MAX_PIPELINED = 100
"""The number of requests of a connection that may wait while one is answered (pipelining).

Each of them takes a few kilobytes, and one small packet can contain thousands."""

_MAX_HEAD_BYTES = 1 << 16
"""The maximum length of the head of a request in bytes, without the first packet."""

_MIN_READ_BYTES = 1 << 16
"""The number of bytes of its response that a client has to read within `timeout_s`."""


class _Flow(FlowControl):
    """Flow control that does not read while requests of the connection wait.

    uvicorn resumes reading after each response. A client that sends requests and never reads a
    response would thus fill the memory of the server.

    Args:
        transport: The connection.
        waiting: The requests that wait while another one is being answered.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Collection[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Resume only if no request waits."""
        if not self._waiting:
            super().resume_reading()


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits on slow and greedy clients.

    It cuts off three kinds of clients: those that do not finish the head of a request in time,
    those that do not read their response, and those that send many more requests than they have
    responses to. uvicorn waits for the first two forever.
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
        """Start the timer for the head of the first request."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, and cut off the client if it sends too many requests."""
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

        A request that offers an upgrade, as Java's client offers HTTP/2, is answered like any other
        (RFC 9110, 7.8). The parser, however, ends at the head of such a request and treats the body
        as another protocol. A new parser therefore continues with the body. It is given a head with
        only the headers that frame the body.

        Args:
            data: The received bytes.

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
        """Respond to input that is not HTTP, in the form of all errors."""
        self.transport.write(malformed_request())
        self._cut()

    def on_message_begin(self) -> None:
        """Record that a head has begun."""
        if not self._is_replaying:
            self._is_in_head, self._framing = True, b""
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Handle the URL, unless a head is being replayed to a new parser."""
        if not self._is_replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header, and keep those that frame the body for a new parser."""
        if self._is_replaying:
            return
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framing += name + b": " + value + b"\r\n"
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the timer for the head."""
        if self._is_replaying:
            return
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Handle the end of a request, unless its body follows after an offer to upgrade."""
        if not (self.parser.should_upgrade() and self._framing):
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn lets its transport close
        """Keep the connection of a client that has stopped sending, since it may still read.

        Returns:
            Whether the transport stays open. It closes if the client stopped within a request, and
            under TLS, which has no half-closed connections.
        """
        self._heard_all = self._is_answering() and not self.cycle.more_body
        return self._heard_all and self.transport.get_extra_info("sslcontext") is None

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to read its last response."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()
        elif self._is_answering():  # the next request has already begun
            return
        elif self._heard_all:
            self._cut()
        else:
            self._await_head(KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read fast enough."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """Stop that timer."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def shutdown(self) -> None:
        """Wait for the client to read its last response, but not forever."""
        super().shutdown()
        if self.transport.is_closing():
            self._await_reader()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the request that is being answered that its client has disconnected.

        uvicorn notifies only the last request of the connection, which may be one that waits.
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
        """Reset the connection if the client has read too little of its response.

        Args:
            before: The number of bytes that were left to write when the timer was started.
        """
        self._unread = None
        left = self.transport.get_write_buffer_size()
        if left > max(0, before - _MIN_READ_BYTES):
            # After a plain close, the operating system would keep the unsent bytes for minutes.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif left:
            self._await_reader()
