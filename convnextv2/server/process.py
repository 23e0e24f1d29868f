"""The process: its socket, its signals, and an end at which no accepted request is lost."""

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
from convnextv2.server.models import Store
from convnextv2.server.notify import notify, notify_reloading
from convnextv2.server.protocol import KEEP_ALIVE_S, TimedProtocol
from convnextv2.server.signals import was_hung_up
from convnextv2.server.tls import Certificate

_ARRIVING_S, _LONGEST_ARRIVING_S = 0.2, 2.0
"""How long after the last connection its request may still be on its way; and where some have sent nothing yet, at most."""


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

    class Protocol(TimedProtocol):
        timeout_s = limits.read_timeout_s

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",  # an upgrade would take the connection from the answer that runs on it
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
    DrainingServer(config, store, limits.drain_s, keys, certificate).run(sockets=[bound])
    if store.failure:
        raise DeviceError(f"a model does not run: {store.failure}")


class DrainingServer(uvicorn.Server):
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
