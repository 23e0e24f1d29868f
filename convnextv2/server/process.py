"""The server process: its socket, its signals, and a shutdown that loses no accepted request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from convnextv2.errors import DeviceError, RecipeError
from convnextv2.server.keys import Keys
from convnextv2.server.limits import Limits
from convnextv2.server.models import Models
from convnextv2.server.notify import notify, notify_reloading
from convnextv2.server.protocol import KEEP_ALIVE_S, TimedProtocol
from convnextv2.server.signals import was_hung_up
from convnextv2.server.tls import Certificate

_ARRIVING_S, _LONGEST_ARRIVING_S = 0.2, 2.0
"""Seconds to wait for requests that are on their way when the server stops listening.

The first number is the time for all connections. The second is the maximum if a connection has not
sent anything yet."""


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket for `run_server`. It does not listen yet.

    Args:
        host: The address.
        port: The port; 0 for any free port.

    Returns:
        The socket.

    Raises:
        OSError: The port is in use, or the address does not belong to this machine.
    """
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
    models: Models,
    limits: Limits,
    bound: socket.socket,
    *,
    keys: Keys,
    certificate: Certificate | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. SIGHUP reloads the models, the keys and the certificate.

    Args:
        app: The application.
        models: Its models.
        limits: Its limits.
        bound: The socket to listen on.
        keys: Its keys.
        certificate: The certificate for HTTPS; None for HTTP.

    Raises:
        DeviceError: A model cannot run.
    """

    class Protocol(TimedProtocol):
        timeout_s = limits.read_timeout_s

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",  # an upgrade would take over the connection of a response that is being sent
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(limits.deadline_s + 2 * limits.read_timeout_s) + 1,
        backlog=1024,
        lifespan="on",
        ssl_certfile=certificate.certfile if certificate else None,
        ssl_keyfile=certificate.keyfile if certificate else None,
    )
    DrainingServer(config, models, limits.drain_s, keys, certificate).run(sockets=[bound])
    if models.failure:
        raise DeviceError(f"a model does not run: {models.failure}")


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a shutdown in two steps and a reload at SIGHUP.

    On SIGTERM or SIGINT, it reports that it is not ready and closes each connection after its next
    response, but still accepts requests. After `drain_s`, it stops listening and answers the
    requests that it has.

    Args:
        config: uvicorn's settings.
        models: The models that are served.
        drain_s: The duration of the first step, in seconds.
        keys: The API keys.
        certificate: The certificate for HTTPS; None for HTTP.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        models: Models,
        drain_s: float,
        keys: Keys | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(config)
        self.models, self.drain_s = models, drain_s
        self.keys, self.certificate = keys or Keys(), certificate
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and handle SIGHUP from now on.

        If a SIGHUP came earlier, reload now, because its change may have come after the models were
        opened.
        """
        await super().startup(sockets)
        if (
            not hasattr(signal, "SIGHUP")
            or threading.current_thread() is not threading.main_thread()
        ):
            return
        loop = asyncio.get_running_loop()

        def hang_up(number: int, frame: FrameType | None) -> None:
            with suppress(RuntimeError):  # the loop is closed, and the process is about to end
                loop.call_soon_threadsafe(self._reload)

        # `loop.add_signal_handler` would restore the default, which kills, when the loop ends.
        signal.signal(signal.SIGHUP, hang_up)
        if was_hung_up():
            self._reload()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown at SIGTERM or SIGINT. A second signal ends the process at once."""
        if self.models.is_draining:
            with suppress(OSError, RuntimeError):
                print("Stopped at once; accepted requests are dropped.", flush=True)
            os._exit(1)  # nothing else interrupts a model that computes
        self.models.is_draining = True
        notify("STOPPING=1")
        if not self.models.is_ready:  # no requests can have come yet
            self.should_exit = True
            return
        loop = self.servers[0].get_loop()
        loop.call_soon_threadsafe(loop.call_later, self.drain_s, self._exit)
        with suppress(OSError, RuntimeError):  # the output may be closed
            print("Finishing the requests that were accepted.", flush=True)

    def _exit(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and answer the remaining requests.

        Closing the socket would reset connections that are not accepted yet, and those whose
        request is on its way. The former are therefore accepted, and the latter get `_ARRIVING_S`.
        """
        try:
            if not self.force_exit:
                await self._accept_the_last(sockets or [])
        finally:
            await super().shutdown(sockets)

    async def _accept_the_last(self, sockets: list[socket.socket]) -> None:
        accepted = self._accept_waiting(sockets)
        for server in self.servers:
            server.close()
        for bound in sockets:
            bound.close()
        loop = asyncio.get_running_loop()
        for connection in accepted:
            with suppress(OSError):  # the client has disconnected
                await loop.connect_accepted_socket(
                    self._build_protocol, connection, ssl=self.config.ssl
                )
        await asyncio.sleep(_ARRIVING_S)
        end = loop.time() + _LONGEST_ARRIVING_S - _ARRIVING_S
        connections: set[Any] = self.server_state.connections
        while loop.time() < end and any(one.cycle is None for one in connections):
            await asyncio.sleep(0.02)

    def _accept_waiting(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Accept the connections that wait in the backlog."""
        accepted = []
        for bound in sockets:
            bound.setblocking(False)
            # BlockingIOError means that there are no more, other errors that none can be accepted.
            with suppress(OSError):
                for _ in range(self.config.backlog):
                    with suppress(ConnectionAbortedError):
                        accepted.append(bound.accept()[0])
        return accepted

    def _build_protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_all())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_all(self) -> None:
        """Reload everything, and print what has changed."""
        notify_reloading()
        lines = self._reload_keys()
        try:
            lines += [change.text for change in await self.models.reload()]
        except Exception as error:  # a bug must not end the server
            lines.append(f"The models are unchanged: {error!r}")
        lines = lines or ["Nothing has changed."]
        for line in lines:
            with suppress(OSError):  # the output may be closed
                print(line, flush=True)
        notify("READY=1", f"STATUS={lines[-1][:200]}")

    def _reload_keys(self) -> list[str]:
        """Read the keys and the certificate again. If that fails, the old ones are kept.

        Returns:
            Lines for the user.
        """
        lines = []
        try:
            if self.keys.read():
                lines.append("API keys: read again, and changed.")
        except RecipeError as error:
            lines.append(f"The API keys are unchanged: {error}")
        if self.certificate and self.config.ssl:
            try:
                self.certificate.load(self.config.ssl)
                lines.append("Certificate: read again.")
            except RecipeError as error:
                lines.append(f"The certificate is unchanged: {error}")
        return lines
