"""A server in a process of its own, and functions that speak to it over a socket."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from processes import OURS, Program

Answer = tuple[int, dict[str, str], dict]


def free_port() -> int:
    """Find a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Process:
    """A server in a process of its own.

    Args:
        folder: Where its output is kept.
        *arguments: Further arguments of `convnextv2 serve`.
        port: The port; 0 for a free one.
        anew: Whether it is started by a new interpreter, which imports everything, and not as a
            copy of a process that has done so.
        **environment: Further variables of its environment.
    """

    popen: Program | subprocess.Popen[bytes]

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        port: int = 0,
        anew: bool = False,
        **environment: str,
    ) -> None:
        self.port = port or free_port()
        self.log, self.errors = (folder / f"{self.port}.{kind}" for kind in ("out", "err"))
        exactly = ["--port", str(self.port), "--device", "cpu", "--precision", "float32"]
        command = [*OURS, "serve", *arguments, *exactly]
        environment = {"OMP_NUM_THREADS": "1"} | environment
        with self.log.open("wb") as log, self.errors.open("wb") as errors:
            if anew:
                self.popen = subprocess.Popen(
                    [sys.executable, *command],
                    stdout=log,
                    stderr=errors,
                    env=os.environ | environment,
                )
            else:
                self.popen = Program(*command, files=(log, errors), **environment)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(60)

    async def takes(self, number: signal.Signals) -> None:
        """Wait until the process has a handler for a signal."""
        async with asyncio.timeout(60):
            while True:
                status = Path(f"/proc/{self.popen.pid}/status").read_text()
                if int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
                    return
                await asyncio.sleep(0.002)

    async def said(self, text: str) -> None:
        """Wait until it has printed a text."""
        async with asyncio.timeout(60):
            while text not in self.log.read_text():
                await asyncio.sleep(0.02)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, image: bytes) -> Callable[[], Awaitable[Answer]]:
        """Ask for a prediction on a new connection, and return a function that reads the answer."""
        reader, writer = await self.connect()
        writer.write(head(len(image)) + image)
        await writer.drain()

        async def read() -> Answer:
            try:
                return await read_answer(reader)
            finally:
                await close(writer)

        return read

    async def ask(self, image: bytes) -> Answer:
        """Ask for a prediction."""
        return await (await self.send(image))()

    async def get(self, path: str) -> Answer:
        """Ask for a path on a connection of its own."""
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        try:
            return await read_answer(reader)
        finally:
            await close(writer)

    async def lives(self) -> None:
        """Wait until it listens."""
        async with asyncio.timeout(60):
            while self.popen.poll() is None:
                try:
                    assert (await self.get("/healthz"))[0] == 200
                    return
                except OSError:
                    await asyncio.sleep(0.02)
        raise AssertionError(self.errors.read_text())

    async def ready(self) -> None:
        """Wait until it is ready."""
        await self.lives()
        async with asyncio.timeout(60):
            while (await self.get("/readyz"))[0] != 200:
                await asyncio.sleep(0.02)


def head(length: int) -> bytes:
    """Write the head of a request for a prediction, with a body of this length."""
    path = "/v1/models/trees/predict?top_k=4"
    lines = f"Host: h\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}".encode()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read the status, the headers and the JSON of an answer.

    If the body is no JSON, {"text": ...} takes its place.
    """
    status, *lines = (
        (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().strip().split("\r\n")
    )
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 30)
    found = json.loads(body) if "json" in headers["content-type"] else {"text": body.decode()}
    return int(status.split()[1]), headers, found


def probs(answer: dict) -> dict[str, float]:
    """Return the probability of each class for the first image of an answer."""
    return {entry["class"]: entry["prob"] for entry in answer["images"][0]["predictions"]}


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """Run a server as a copy of a process that has imported most of it.

    Args:
        *words: What stands after `convnextv2 serve` on a command line.

    Yields:
        The address of a server that is ready.
    """
    address = f"http://127.0.0.1:{(port := free_port())}/"
    program = Program(*OURS, "serve", *words, "--port", port, OMP_NUM_THREADS="1")
    try:
        end = time.monotonic() + 300
        while True:
            try:
                urlopen(f"{address}readyz").close()
                break
            except URLError:  # not listening yet, or not warmed up
                assert time.monotonic() < end
                time.sleep(0.1)
        yield address
        program.send_signal(signal.SIGTERM)
        program.wait(300)
    finally:
        program.close()
