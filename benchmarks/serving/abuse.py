"""Ten thousand bad requests, and whether the server still serves."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from bad_requests import bad_request
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from servers import memory_mib, ours

from convnextv2.machine import peak_memory


def from_schema(address: str, requests: int) -> Counter[str]:
    """Send requests that schemathesis makes from /openapi.json, right ones and wrong ones.

    Args:
        address: The address of the server.
        requests: About how many.

    Returns:
        The number of answers by status.
    """
    statuses: Counter[str] = Counter()
    api = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in api.get_all_operations()]
    many = [one for one in operations if "{" in one.path]
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            examples = requests // len(many) // 2 if operation in many else 10

            @settings(
                max_examples=examples,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                phases=[Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
            def check(case: schemathesis.Case, there: bool) -> None:
                if there:
                    case.path_parameters.update(
                        {k: {"name": "m", "version": "1"}[k] for k in case.path_parameters}
                    )
                statuses[str(case.call().status_code)] += 1

            with suppress(Unsatisfiable):  # nothing can be wrong where nothing is taken
                check()
    return statuses


def deaf(port: int) -> str:
    """Ask for much and read none of it, until the server cuts us off or a minute is over."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
            except ConnectionError:
                return "cut off"
            except TimeoutError:
                continue
            time.sleep(0.05)
    return "was never cut off"


async def raw(port: int, data: bytes, *, then_wait: float = 0.0, half_close: bool = False) -> str:
    """Send bytes on a connection of their own.

    Args:
        port: The port of the server.
        data: The bytes.
        then_wait: Seconds after which to leave without reading the answer; 0 to read it.
        half_close: Whether to say that nothing more comes.

    Returns:
        The status that came back, or what happened in its place.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()
        if then_wait:
            await asyncio.sleep(then_wait)
            return "left"
        line = await asyncio.wait_for(reader.readline(), 30)
        return (
            line.split()[1].decode()
            if line.startswith(b"HTTP/") and len(line.split()) > 1
            else "closed"
        )
    except (ConnectionError, TimeoutError) as error:
        return type(error).__name__
    finally:
        writer.close()
        with suppress(Exception):
            await writer.wait_closed()


def odd_connections(
    port: int, photo: bytes, rng: random.Random
) -> list[Callable[[], Coroutine[Any, Any, str]]]:
    """List what a client can do wrong below HTTP, each as a function that does it."""
    head = b"POST /v1/models/m/predict HTTP/1.1\r\nHost: x\r\n"
    unfinished = head + b"Content-Length: 1000\r\n\r\nabc"
    many = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50_000
    whole = head + b"Content-Length: %d\r\n\r\n" % len(photo) + photo
    two_lengths = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"
    return [
        lambda: raw(port, unfinished, half_close=True),
        lambda: raw(port, unfinished),  # the rest never comes: 408
        lambda: raw(port, head[: rng.randrange(5, len(head))]),  # a head without end: closed
        lambda: raw(port, head + b"Content-Length: 99999999\r\n\r\nabc"),
        lambda: raw(port, head + b"Content-Length: -5\r\n\r\nabc"),
        lambda: raw(port, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        lambda: raw(port, head + two_lengths),
        lambda: raw(port, rng.randbytes(300)),
        lambda: raw(port, b"GET / HTTP/9.9\r\n\r\n"),
        lambda: raw(port, many),  # more than it answers at a time
        lambda: raw(port, head + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
        lambda: raw(port, whole, then_wait=0.001),  # leaves before the answer
    ]


def look_at(answer: httpx.Response, path: str, kind: str, body: bytes) -> None:
    """Print a failure of the server, and assert that a refusal has the form that it should."""
    status = answer.status_code
    if status >= 500 and status != 503:
        print(status, path, kind, body[:80], answer.text[:200], flush=True)
    elif status != 200:
        error = answer.json()["error"]
        if path.startswith("/v2"):
            assert isinstance(error, str), answer.text
        else:
            assert error.keys() == {"code", "message"}, answer.text


async def still_serves(client: httpx.AsyncClient, address: str, photo: bytes) -> bool:
    """Return whether ten good requests are answered, one after another."""
    await asyncio.sleep(5)  # the model and the decoders may first finish what others have sent
    url = f"{address}/v1/models/m/predict"
    answers = [await client.post(url, content=photo) for _ in range(10)]
    return all(answer.status_code == 200 for answer in answers)


async def abuse(artifact: str, photo: bytes, requests: int) -> dict[str, Any]:
    """Send bad requests of all kinds, and good ones after each kind.

    Args:
        artifact: The artifact that is served.
        photo: A good image.
        requests: The number of bad requests.

    Returns:
        The answers, the memory before and after, and what is claimed.
    """
    rng = random.Random(0)
    counts: Counter[str] = Counter()
    gate = asyncio.Semaphore(64)
    with ours(artifact, "--read_timeout_s", "2", "--max_body_mb", "4") as (address, process):
        port = int(address.rpartition(":")[2])
        connections = odd_connections(port, photo, rng)

        async def one(client: httpx.AsyncClient, number: int) -> None:
            async with gate:
                if number % 5 == 0:
                    counts[f"connection: {await rng.choice(connections)()}"] += 1
                    return
                path, body, kind = bad_request(photo, rng)
                headers = {"Content-Type": kind}
                try:
                    answer = await client.post(address + path, content=body, headers=headers)
                except httpx.HTTPError as error:
                    counts[type(error).__name__] += 1
                    return
                counts[str(answer.status_code)] += 1
                look_at(answer, path, kind, body)

        async with httpx.AsyncClient(timeout=60) as client:
            fifth = requests // 5
            await asyncio.gather(*(one(client, i) for i in range(fifth)))
            serves = [await still_serves(client, address, photo)]
            before = memory_mib(process)
            made = await asyncio.to_thread(from_schema, address, fifth)
            serves.append(await still_serves(client, address, photo))
            deafs = Counter(
                await asyncio.gather(*(asyncio.to_thread(deaf, port) for _ in range(8)))
            )
            rest = requests - fifth - made.total() - deafs.total()
            await asyncio.gather(*(one(client, i) for i in range(rest)))
            serves.append(await still_serves(client, address, photo))
            after, most = memory_mib(process), peak_memory(process.pid) >> 20
        is_alive = process.poll() is None
    failures = {one for one in {*counts, *made} if one.startswith("5") and one != "503"}
    return {
        "answers": dict(counts),
        "answers to schemathesis": dict(made),
        "clients that do not read": dict(deafs),
        "memory_mib": {"after a fifth": before, "after all": after, "at most": most},
        "claims": {
            "no 5xx but 503": not failures,
            "clients that do not read are cut off": deafs.keys() == {"cut off"},
            "memory does not grow": after <= 1.1 * before,
            "one client at a time is never too many": "503" not in made and "429" not in made,
            "still serves, after each kind": all(serves) and is_alive,
        },
    }
