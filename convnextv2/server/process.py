"""The process: connections, signals, and an end at which no accepted request is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from convnextv2.errors import DeviceError, RecipeError
from convnextv2.server.keys import Keys
from convnextv2.server.limits import ASGIApp, Limits
from convnextv2.server.models import Store
from convnextv2.server.notify import notify, notify_reloading
from convnextv2.server.refusal import malformed_request
from convnextv2.server.signals import was_hung_up
from convnextv2.server.tls import Certificate

_KEEP_ALIVE_S = 30

_ARRIVING_S, _LONGEST_ARRIVING_S = 0.2, 2.0
"""How long after the last connection its request may still be on its way; and where some have sent nothing yet, at most."""

_MOST_BEHIND = 100
"""Requests that may wait behind the one that is answered on a connection (pipelining). Each holds a few kilobytes, and a small
packet can bring thousands."""

_LONGEST_HEAD = 1 << 16
"""Bytes of a request's head, beside the first packet."""

_SLOWEST_BYTES = 1 << 16
"""Of an answer, that a client has to take within `read_timeout_s`."""


def bind(host: str, port: int) -> socket.socket:
    """A socket for `run_server`, which nobody can connect to yet. port: 0 for any. Raises OSError where the port is taken."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def run_server(
    app: ASGIApp,
    store: Store,
    limits: Limits,
    bound: socket.socket,
    *,
    keys: Keys,
    certificate: Certificate | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads models, keys and the certificate.

    Args:
        app: The application.
        store: Its models.
        limits: Its limits.
        bound: The socket to listen on.
        keys: Its keys.
        certificate: To speak HTTPS; None for HTTP.

    Raises:
        DeviceError: A model does not run.
    """

    class Protocol(_TimedProtocol):
        timeout_s = limits.read_timeout_s

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",  # an upgrade would take the connection from the answer that runs on it
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.deadline_s + 2 * limits.read_timeout_s) + 1,
        backlog=1024,
        lifespan="on",
        ssl_certfile=certificate.certfile if certificate else None,
        ssl_keyfile=certificate.keyfile if certificate else None,
    )
    _DrainingServer(config, store, limits.drain_s, keys, certificate).run(sockets=[bound])
    if store.failure:
        raise DeviceError(f"a model does not run: {store.failure}")


class _Flow(FlowControl):
    """Reads nothing while requests of the connection wait. uvicorn reads on at each answer, and so would hold ever more of what
    a client sends that never reads."""

    def __init__(self, transport: asyncio.Transport, behind: Collection[Any]) -> None:
        super().__init__(transport)
        self._behind = behind

    def resume_reading(self) -> None:
        if not self._behind:
            super().resume_reading()


class _TimedProtocol(HttpToolsProtocol):
    """Cuts off clients that do not finish a request's head in time, those that do not take their answer, and those that ask for
    much more than they are answered; uvicorn waits for the first two for ever."""

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
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        self._head_bytes = self._head_bytes + len(data) if was_in_head and self._is_in_head else 0
        if len(self.pipeline) > _MOST_BEHIND or self._head_bytes > _LONGEST_HEAD:
            self.pipeline.clear()
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        """Parse what has come. Nothing is upgraded here, so a request that offers it (as Java's client offers HTTP/2) is
        answered as it is (RFC 9110, 7.8). The parser takes such a request for ended and its body for another protocol: a new
        parser, told of the body alone, goes on with that and with what follows."""
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
        """Answer to what is not HTTP, in the form of all errors."""
        self.transport.write(malformed_request())
        self._cut()

    def on_message_begin(self) -> None:
        if not self._is_replaying:
            self._is_in_head, self._framing = True, b""
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_replaying:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_replaying:
            return
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framing += name + b": " + value + b"\r\n"
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_replaying:
            return
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and self._framing):  # else its body comes yet
            super().on_message_complete()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn lets its transport close
        """A client that has said all may still listen; one that breaks off has left."""
        self._heard_all = self._is_answering() and not self.cycle.more_body
        return (
            self._heard_all and self.transport.get_extra_info("sslcontext") is None
        )  # TLS has no half-closed connections

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()
        elif self._is_answering():  # a request that came behind this one
            return
        elif self._heard_all:
            self._cut()
        else:
            self._await_head(_KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._await_reader()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        if (
            self._running is not None
        ):  # uvicorn tells only the last request that came, which may be one behind it
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
        self._unread = None
        left = self.transport.get_write_buffer_size()
        if left > max(0, before - _SLOWEST_BYTES):
            # Reset: the system, too, would wait for such a client for minutes, with all that was written.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif left:
            self._await_reader()


class _DrainingServer(uvicorn.Server):
    """Goes in two steps: first it says that it is not ready and closes each connection after its next answer, still taking
    requests; `drain_s` later it stops to listen and finishes what it has."""

    def __init__(
        self,
        config: uvicorn.Config,
        store: Store,
        drain_s: float,
        keys: Keys | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(config)
        self.store, self.drain_s, self.keys, self.certificate = (
            store,
            drain_s,
            keys or Keys(),
            certificate,
        )
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and take SIGHUP. One that has come before is answered now: what it was for may have been loaded already."""
        await super().startup(sockets)
        if (
            not hasattr(signal, "SIGHUP")
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        loop = asyncio.get_running_loop()

        def hang_up(number: int, frame: FrameType | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process is about to end
                loop.call_soon_threadsafe(self._reload)

        signal.signal(
            signal.SIGHUP, hang_up
        )  # not the loop's own way, which brings the default back at its end
        if was_hung_up():
            self._reload()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of SIGTERM and SIGINT. A second one does not wait."""
        if self.store.is_draining:
            with suppress(OSError, RuntimeError):
                print("Ended at once, without finishing.", flush=True)
            os._exit(1)  # a model that computes is not interrupted by less
        self.store.is_draining = True
        notify("STOPPING=1")
        if not self.store.is_ready:  # nobody was told to send anything yet
            self.should_exit = True
            return
        loop = self.servers[0].get_loop()
        loop.call_soon_threadsafe(loop.call_later, self.drain_s, self._exit)
        with suppress(OSError, RuntimeError):  # nobody may read what is printed
            print("Finishing what was accepted.", flush=True)

    def _exit(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen and finish what there is. Whoever has connected is accepted first, and what is sent within
        `_ARRIVING_S` is read: closing would reset both."""
        try:
            if not self.force_exit:
                await self._accept_the_last(sockets or [])
        finally:
            await super().shutdown(sockets)

    async def _accept_the_last(self, sockets: list[socket.socket]) -> None:
        accepted = []
        for bound in sockets:
            bound.setblocking(False)
            with suppress(
                OSError
            ):  # BlockingIOError where there is no other; or there are no more file descriptors
                for _ in range(self.config.backlog):
                    with suppress(ConnectionAbortedError):
                        accepted.append(bound.accept()[0])
        for server in self.servers:
            server.close()
        for bound in sockets:
            bound.close()
        loop, protocol = asyncio.get_running_loop(), self.config.http_protocol_class
        for connection in accepted:
            with suppress(OSError):  # it has left
                await loop.connect_accepted_socket(
                    lambda: protocol(
                        config=self.config,
                        server_state=self.server_state,
                        app_state=self.lifespan.state,
                    ),  # type: ignore[call-arg]
                    connection,
                    ssl=self.config.ssl,
                )
        await asyncio.sleep(_ARRIVING_S)
        end = loop.time() + _LONGEST_ARRIVING_S - _ARRIVING_S
        while loop.time() < end and any(one.cycle is None for one in self.server_state.connections):  # type: ignore[union-attr]
            await asyncio.sleep(0.02)

    async def _renew(self) -> None:
        notify_reloading()
        lines = self._renew_keys()
        try:
            lines += [change.text for change in await self.store.reload()]
        except Exception as error:  # of a mistake of ours: all that is served goes on
            lines.append(f"Models stay as they were: {error!r}")
        for line in lines or ["Nothing has changed."]:
            with suppress(OSError):  # nobody may read what is printed
                print(line, flush=True)
        notify("READY=1", f"STATUS={(lines or ['Nothing has changed.'])[-1][:200]}")

    def _renew_keys(self) -> list[str]:
        """Read the keys and the certificate again. Returns lines for people; what cannot be read stays as it was."""
        lines = []
        try:
            if self.keys.read():
                lines.append("API keys: read again, and changed.")
        except RecipeError as error:
            lines.append(f"API keys stay as they were: {error}")
        if self.certificate and self.config.ssl:
            try:
                self.certificate.load(self.config.ssl)
                lines.append("Certificate: read again.")
            except RecipeError as error:
                lines.append(f"The certificate stays as it was: {error}")
        return lines

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._renew())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
