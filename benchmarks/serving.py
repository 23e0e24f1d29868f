"""The server under load: docs/deploy.md's figures.

    python benchmarks/serving.py load ARTIFACT PHOTO         pace, latency and memory, beside the engine alone and LitServe
    python benchmarks/serving.py lose ARTIFACT PHOTO         requests lost at SIGTERM and during a reload
    python benchmarks/serving.py abuse ARTIFACT PHOTO        ten thousand bad requests

The load comes from `hey` (Debian package of that name) on the same machine; its share of the processors is measured and stated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import torch

from convnextv2.data.decode import decode
from convnextv2.deploy.scorer import open_scorer

MAX_BATCH = 32


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, ready: str) -> Iterator[subprocess.Popen[str]]:
    """A server's process, once it answers at `ready`."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            for _ in range(600):
                with suppress(OSError):
                    if urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}").status == 200:
                        break
                time.sleep(0.1)
            else:
                log.seek(0)
                raise RuntimeError(log.read())
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


@contextmanager
def ours(artifact: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`convnextv2 serve`, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "convnextv2", "serve", f"m={artifact}", "--port", str(port), *options]
    with served(command, port, "/readyz") as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def theirs(artifact: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """LitServe, and its address."""
    port = free_port()
    script = str(Path(__file__).with_name("litserve_peer.py"))
    with served([sys.executable, script, artifact, str(port), str(MAX_BATCH)], port, "/health") as process:
        yield f"http://127.0.0.1:{port}", process


def engine_alone(artifact: str, photo: bytes, seconds: float) -> float:
    """Images/s of decoding in threads and scoring in batches, taking turns, without any server."""
    scorer = open_scorer(artifact)
    transform = scorer.transform

    def prepare(_: int) -> torch.Tensor:
        return transform(decode(photo, name="photo", channels=transform.channels, max_pixels=10**9))

    done, rates = 0, []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as decoders:
        scorer(torch.stack(list(decoders.map(prepare, range(MAX_BATCH)))))
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            scorer(torch.stack(list(decoders.map(prepare, range(MAX_BATCH)))))
            done += 1
            rates.append(MAX_BATCH / (time.perf_counter() - began))
    return sorted(rates)[len(rates) // 2]


def hey(url: str, body: Path, kind: str, *, seconds: float, clients: int, rate: float | None = None) -> dict[str, Any]:
    """Load by `hey`: answers/s by status, latency in ms of those answered with 200, and hey's share of the processors."""
    command = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", kind, "-D", str(body), "-t", "60", "-o", "csv"]
    if rate:
        command += ["-q", f"{rate / clients:.4f}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    text = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = [line.split(",") for line in text.splitlines()[1:]]
    statuses = Counter(row[6] for row in rows)
    good = sorted(1000 * float(row[0]) for row in rows if row[6] == "200")
    last = max((float(row[7]) + float(row[0]) for row in rows), default=wall)
    return {
        "per_second": len(good) / last,
        "statuses": dict(statuses),
        "p50_ms": good[len(good) // 2] if good else None,
        "p99_ms": good[int(0.99 * (len(good) - 1))] if good else None,
        "max_ms": good[-1] if good else None,
        "hey_share": cpu / wall / len(os.sched_getaffinity(0)),
    }


def memory_mib(process: subprocess.Popen[str]) -> int:
    """Resident memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) >> 10


def form(photo: bytes, folder: Path) -> tuple[Path, str]:
    """The photo in a multipart body, and its content type."""
    request = httpx.Request("POST", "http://x", files={"image": ("a.jpg", photo, "image/jpeg")})
    (folder / "form").write_bytes(request.read())
    return folder / "form", request.headers["content-type"]


def load(artifact: str, photo: Path, seconds: float) -> dict[str, Any]:
    """Everything of the first mode."""
    data, kind = photo.read_bytes(), "application/octet-stream"
    found: dict[str, Any] = {"engine_alone": [], "saturated": [], "litserve": []}
    with tempfile.TemporaryDirectory() as folder:
        body, form_kind = form(data, Path(folder))
        for _ in range(3):
            found["engine_alone"].append(engine_alone(artifact, data, seconds / 2))
            with ours(artifact) as (address, _):
                hey(f"{address}/v1/models/m/predict", photo, kind, seconds=2, clients=64)
                found["saturated"].append(hey(f"{address}/v1/models/m/predict", photo, kind, seconds=seconds, clients=64))
            with theirs(artifact) as (address, _):
                hey(f"{address}/predict", body, form_kind, seconds=2, clients=64)
                found["litserve"].append(hey(f"{address}/predict", body, form_kind, seconds=seconds, clients=64))
        best = sorted(one["per_second"] for one in found["saturated"])[1]
        lit = sorted(one["per_second"] for one in found["litserve"])[1]
        with ours(artifact, "--deadline_s", "5") as (address, process):
            url = f"{address}/v1/models/m/predict"
            found["half"] = hey(url, photo, kind, seconds=seconds, clients=32, rate=best / 2)
            hey(url, photo, kind, seconds=5, clients=600, rate=2 * best)
            found["memory_before_mib"] = memory_mib(process)
            found["twice"] = [hey(url, photo, kind, seconds=seconds, clients=600, rate=2 * best) for _ in range(3)]
            found["memory_after_mib"] = memory_mib(process)
        with theirs(artifact) as (address, _):
            found["litserve_half"] = hey(f"{address}/predict", body, form_kind, seconds=seconds, clients=32, rate=lit / 2)
            found["litserve_at_our_half"] = hey(f"{address}/predict", body, form_kind, seconds=seconds, clients=32, rate=best / 2)
    alone = sorted(found["engine_alone"])[1]
    share = sorted(one["hey_share"] for one in found["saturated"])[1]
    found["summary"] = {
        "engine_alone_per_second": alone,
        "saturated_per_second": best,
        "share_of_engine": best / alone,
        "share_of_engine_without_hey": best / (1 - share) / alone,
        "litserve_per_second": lit,
        "over_litserve": best / lit,
    }
    return found


async def ask(client: httpx.AsyncClient, url: str, photo: bytes, counts: Counter[str], gate: asyncio.Semaphore) -> None:
    """One request; a refusal that says so is tried again, as a load balancer or client would."""
    async with gate:
        for _ in range(1000):
            try:
                answer = await client.post(url, content=photo)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                counts["not connected, tried again"] += 1  # nothing was accepted
                await asyncio.sleep(0.05)
                continue
            except httpx.HTTPError as error:
                counts[f"lost: {type(error).__name__}"] += 1
                return
            if answer.status_code in (429, 503):
                counts[f"{answer.status_code}, tried again"] += 1
                await asyncio.sleep(0.05)
                continue
            counts[str(answer.status_code)] += 1
            if answer.status_code == 200:
                counts[f"version {answer.json()['version']}"] += 1
            return
        counts["gave up"] += 1


async def lose_some(artifact: str, photo: bytes, requests: int) -> dict[str, Any]:
    """Requests in flight while the model is replaced again and again, and while servers are stopped and started anew."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "artifact"
        shutil.copytree(artifact, model)
        port = free_port()
        url = f"http://127.0.0.1:{port}/v1/models/m/predict"
        command = [sys.executable, "-m", "convnextv2", "serve", f"m={model}", "--port", str(port)]
        for what in ("reload", "sigterm"):
            counts: Counter[str] = Counter()
            events = 0
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=32)) as client:
                await _until_ready(port)
                gate = asyncio.Semaphore(32)

                tasks = [asyncio.create_task(ask(client, url, photo, counts, gate)) for _ in range(requests)]
                while not all(task.done() for task in tasks):
                    await asyncio.sleep(4)
                    if all(task.done() for task in tasks):
                        break
                    events += 1
                    if what == "reload":
                        (model / "artifact.json").touch()
                        process.send_signal(signal.SIGHUP)
                    else:
                        process.send_signal(signal.SIGTERM)
                        if code := await asyncio.to_thread(process.wait, 60):
                            raise RuntimeError(f"the server ended with {code}")
                        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                        await _until_ready(port)
                await asyncio.gather(*tasks)
            process.terminate()
            process.wait(60)
            found[what] = {"events": events, **counts}
            print(what, found[what], flush=True)
    return found


async def _until_ready(port: int) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(600):
            with suppress(httpx.HTTPError):
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError("the server does not become ready")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is that large, of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


def bad_request(photo: bytes, draw: random.Random) -> tuple[str, bytes, str]:
    """Path, body and content type of a request that should be refused, or at least survived."""
    damaged = bytearray(photo)
    for _ in range(draw.randint(1, 40)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    tensor = {
        "name": "pixels",
        "shape": draw.choice([[1], [-1, 64, 64, 3], [2**40, 2, 2, 3], []]),
        "datatype": draw.choice(["UINT8", "BYTES", "FP64", 3]),
        "data": draw.choice([[], [300], ["a"], [[1]], [1e99]]),
    }
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n'
    bodies = [
        bytes(damaged),
        photo[: draw.randrange(len(photo))],
        b"",
        draw.randbytes(draw.randint(1, 5000)),
        bomb(60_000, 60_000),
        bomb(2**31 - 1, 1),
        b"GIF89a" + draw.randbytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + draw.randbytes(60),
        b"II*\x00\x08\x00\x00\x00" + draw.randbytes(200),
        json.dumps({"images": draw.choice([[], [1], ["%%%"], [None], "x", {"a": 1}, [""] * 70, ["A" * 9]])}).encode(),
        b'{"images": ["' + b"[" * 10_000,
        b"[" * 50_000,
        json.dumps({"inputs": [tensor]}).encode(),
        part[:40] + draw.randbytes(50),
        part * 200 + b"--b--\r\n",
    ]
    kinds = [
        "application/octet-stream",
        "application/json",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain",
        "",
        "image/jpeg",
        "application/json; charset=utf-16",
        "bad",
        "multipart/form-data; boundary=" + "b" * 500,
    ]
    predict = "/v1/models/m/predict"
    paths = [
        *[predict] * 8,
        *["/v2/models/m/infer"] * 2,
        f"{predict}?top_k=-1",
        f"{predict}?top_k=nan&threshold=inf",
        f"{predict}?explanation=maybe",
        "/v1/models/x/predict",
        "/v1/models/m/reconstruct",
        "/v1/models/m/versions/9/predict",
        "/v2/models/%00/infer",
        "/v1/models/..%2f..%2fetc/predict",
        "/page/..%2f..%2fapp.py",
        "/nothing",
    ]
    return draw.choice(paths), draw.choice(bodies), draw.choice(kinds[:3]) if draw.random() < 0.7 else draw.choice(kinds)


async def raw(port: int, data: bytes, *, then_wait: float = 0.0, half_close: bool = False) -> str:
    """Bytes on a connection of their own, and the status that comes back."""
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
        return line.split()[1].decode() if line.startswith(b"HTTP/") and len(line.split()) > 1 else "closed"
    except (ConnectionError, TimeoutError) as error:
        return type(error).__name__
    finally:
        writer.close()
        with suppress(Exception):
            await writer.wait_closed()


async def abuse(artifact: str, photo: bytes, requests: int) -> dict[str, Any]:
    """Bad requests of all kinds, then a good one; memory before and after."""
    draw = random.Random(0)
    with ours(artifact, "--read_timeout_s", "2", "--max_body_mb", "4") as (address, process):
        port = int(address.rpartition(":")[2])
        head = b"POST /v1/models/m/predict HTTP/1.1\r\nHost: x\r\n"
        connections = [
            lambda: raw(port, head + b"Content-Length: 1000\r\n\r\nabc", half_close=True),
            lambda: raw(port, head + b"Content-Length: 1000\r\n\r\nabc"),  # the rest never comes: 408
            lambda: raw(port, head[: draw.randrange(5, len(head))]),  # a head that never ends: closed
            lambda: raw(port, head + b"Content-Length: 99999999\r\n\r\nabc"),
            lambda: raw(port, head + b"Content-Length: -5\r\n\r\nabc"),
            lambda: raw(port, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            lambda: raw(port, head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"),
            lambda: raw(port, draw.randbytes(300)),
            lambda: raw(port, b"GET / HTTP/9.9\r\n\r\n"),
            lambda: raw(port, head + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
            lambda: raw(
                port, head + b"Content-Length: %d\r\n\r\n" % len(photo) + photo, then_wait=0.001
            ),  # leaves before the answer
        ]
        counts: Counter[str] = Counter()

        async def one(client: httpx.AsyncClient, number: int, gate: asyncio.Semaphore) -> None:
            async with gate:
                if number % 5 == 0:
                    counts[f"connection: {await draw.choice(connections)()}"] += 1
                    return
                path, body, kind = bad_request(photo, draw)
                try:
                    answer = await client.post(address + path, content=body, headers={"Content-Type": kind})
                except httpx.HTTPError as error:
                    counts[type(error).__name__] += 1
                    return
                counts[str(answer.status_code)] += 1
                if answer.status_code >= 500 and answer.status_code != 503:
                    print(answer.status_code, path, kind, body[:80], answer.text[:200], flush=True)
                elif answer.status_code != 200:
                    assert answer.json()["error"].keys() == {"code", "message"}, answer.text

        async with httpx.AsyncClient(timeout=60) as client:
            gate = asyncio.Semaphore(64)
            await asyncio.gather(*(one(client, i, gate) for i in range(requests // 5)))
            before = memory_mib(process)
            await asyncio.gather(*(one(client, i, gate) for i in range(requests - requests // 5)))
            after = memory_mib(process)
            good = await client.post(f"{address}/v1/models/m/predict", content=photo)
        return {
            "answers": dict(counts),
            "memory_after_a_fifth_mib": before,
            "memory_after_all_mib": after,
            "then": good.status_code,
            "alive": process.poll() is None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("load", "lose", "abuse"))
    parser.add_argument("artifact")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--requests", type=int, default=10_000)
    arguments = parser.parse_args()
    photo: bytes = arguments.photo.read_bytes()
    if arguments.mode == "load":
        found = load(arguments.artifact, arguments.photo, arguments.seconds)
    elif arguments.mode == "lose":
        found = asyncio.run(lose_some(arguments.artifact, photo, arguments.requests))
    else:
        found = asyncio.run(abuse(arguments.artifact, photo, arguments.requests))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
