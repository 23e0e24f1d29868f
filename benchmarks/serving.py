"""The server under load: docs/how-to/deploy.md's figures.

    python benchmarks/serving.py load ARTIFACT PHOTO         pace, latency and memory, beside the engine alone and LitServe
    python benchmarks/serving.py lose ARTIFACT PHOTO         requests lost at SIGTERM and during a reload
    python benchmarks/serving.py abuse ARTIFACT PHOTO        ten thousand bad requests
    python benchmarks/serving.py look RUN PHOTO OUT          pictures of the page in OUT

Each mode ends with what it claims and whether that held, and with exit code 1 where something did not. The load comes from `hey`
(Debian package of that name) on the same machine; its share of the processors is measured and stated.
"""

from __future__ import annotations

import argparse
import asyncio
import io
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
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image

from convnextv2.data.decode import decode
from convnextv2.inference.scorer import open_scorer
from convnextv2.machine import peak_memory

MAX_BATCH = 32
REFUSED = (
    "queue_full",
    "not_ready",
    "shutting_down",
)  # the codes of requests that were never accepted


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, ready: str) -> Iterator[subprocess.Popen[str]]:
    """A server's process, once it answers at `ready`."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
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
            with suppress(
                ProcessLookupError
            ):  # LitServe leaves processes behind, which would take part in what follows
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def ours(artifact: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`convnextv2 serve`, and its address."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "convnextv2",
        "serve",
        f"m={artifact}",
        "--port",
        str(port),
        *options,
    ]
    with served(command, port, "/readyz") as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def theirs(artifact: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """LitServe, and its address."""
    port = free_port()
    script = str(Path(__file__).with_name("litserve_peer.py"))
    with served(
        [sys.executable, script, artifact, str(port), str(MAX_BATCH)], port, "/health"
    ) as process:
        yield f"http://127.0.0.1:{port}", process


def engine_alone(artifact: str, photo: bytes, seconds: float) -> float:
    """Images/s of scoring batches while the next ones are decoded in threads, without any server."""
    scorer = open_scorer(artifact)
    transform = scorer.transform

    def prepare(_: int) -> torch.Tensor:
        return transform(
            decode(photo, name="photo", channels=transform.preprocessing.channels, max_pixels=10**9)
        )

    rates = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as decoders:
        ahead = [decoders.submit(prepare, 0) for _ in range(2 * MAX_BATCH)]
        scorer(torch.stack([one.result() for one in ahead[:MAX_BATCH]]))
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            images = torch.stack([one.result() for one in ahead[:MAX_BATCH]])
            ahead = [*ahead[MAX_BATCH:], *(decoders.submit(prepare, 0) for _ in range(MAX_BATCH))]
            scorer(images)
            rates.append(MAX_BATCH / (time.perf_counter() - began))
    return sorted(rates)[len(rates) // 2]


def hey(
    url: str, body: Path, kind: str, *, seconds: float, clients: int, rate: float | None = None
) -> dict[str, Any]:
    """Load by `hey`: answers/s by status, latency in ms of those answered with 200, and hey's share of the processors.

    rate: requests/s of all clients together. The clients of one `hey` ask at the same moments: so it is run eight times then, one
    after the other, and arrivals are spread.
    """
    parts = min(8, clients) if rate else 1
    command = [
        "hey",
        "-z",
        f"{seconds}s",
        "-c",
        str(clients // parts),
        "-m",
        "POST",
        "-T",
        kind,
        "-D",
        str(body),
        "-t",
        "60",
    ]
    if rate:
        command += ["-q", f"{rate / (clients // parts * parts):.4f}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    running = []
    for part in range(parts):
        if part and rate:
            time.sleep(clients / rate / parts)
        running.append(
            subprocess.Popen([*command, "-o", "csv", url], stdout=subprocess.PIPE, text=True)
        )
    texts = [process.communicate()[0] for process in running]
    wall = time.perf_counter() - began
    if failed := [process.returncode for process in running if process.returncode]:
        raise RuntimeError(f"hey ended with {failed}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tables = [[line.split(",") for line in text.splitlines()[1:]] for text in texts]
    good = sorted(1000 * float(row[0]) for rows in tables for row in rows if row[6] == "200")
    paces = [
        sum(row[6] == "200" for row in rows) / max(float(row[7]) + float(row[0]) for row in rows)
        for rows in tables
        if rows
    ]
    return {
        "per_second": sum(paces),
        "statuses": dict(Counter(row[6] for rows in tables for row in rows)),
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
    """Pace at saturation beside the engine alone and LitServe, then latency at half of it and at twice of it. Slow models get
    more seconds and fewer clients, so that each load has some hundreds of answers and no more waits than can be answered.
    """
    deadline_s, clients = 5, 64
    data, raw_kind = photo.read_bytes(), "application/octet-stream"
    found: dict[str, Any] = {
        "engine_alone": [],
        "saturated": [],
        "saturated, form": [],
        "litserve, form": [],
    }
    seconds = max(seconds, 5 * clients / engine_alone(artifact, data, seconds))
    with tempfile.TemporaryDirectory() as folder:
        body, form_kind = form(data, Path(folder))
        for _ in range(3):
            found["engine_alone"].append(engine_alone(artifact, data, seconds))
            with ours(artifact, "--deadline_s", "60") as (
                address,
                _,
            ):  # LitServe has none; refusing takes processors, too
                url = f"{address}/v1/models/m/predict"
                hey(url, photo, raw_kind, seconds=2, clients=clients)
                found["saturated"].append(
                    hey(url, photo, raw_kind, seconds=seconds, clients=clients)
                )
                found["saturated, form"].append(
                    hey(url, body, form_kind, seconds=seconds, clients=clients)
                )
            with theirs(artifact) as (address, _):
                hey(f"{address}/predict", body, form_kind, seconds=2, clients=clients)
                found["litserve, form"].append(
                    hey(f"{address}/predict", body, form_kind, seconds=seconds, clients=clients)
                )
        best, lit = (
            middle(found["saturated"], "per_second"),
            middle(found["litserve, form"], "per_second"),
        )
        some = max(8, min(32, round(best / 10)))
        waiting = min(256, best * deadline_s / 2)  # what our server lets wait
        many = max(64, round(3 * waiting))
        with ours(artifact, "--deadline_s", str(deadline_s)) as (address, process):
            url = f"{address}/v1/models/m/predict"
            found["half"] = hey(url, photo, raw_kind, seconds=seconds, clients=some, rate=best / 2)
            found["form, at half of LitServe's pace"] = hey(
                url, body, form_kind, seconds=seconds, clients=some, rate=lit / 2
            )
            hey(
                url, photo, raw_kind, seconds=seconds, clients=many, rate=2 * best
            )  # buffers grow to what such a load needs
            found["memory_mib"] = [memory_mib(process)]
            found["twice"] = []
            for _ in range(3):
                found["twice"].append(
                    hey(url, photo, raw_kind, seconds=seconds, clients=many, rate=2 * best)
                )
                found["memory_mib"].append(memory_mib(process))
        with theirs(artifact) as (address, _):
            hey(f"{address}/predict", body, form_kind, seconds=2, clients=clients)
            found["litserve, at half of its pace"] = hey(
                f"{address}/predict", body, form_kind, seconds=seconds, clients=some, rate=lit / 2
            )
    alone, share = sorted(found["engine_alone"])[1], middle(found["saturated"], "hey_share")
    our_form = middle(found["saturated, form"], "per_second")
    found["summary"] = {
        "engine alone, images/s": alone,
        "saturated, images/s": best,
        "share of the engine": best / alone,
        "share of the engine with the processors that hey left": best / (1 - share) / alone,
        "as a form, images/s": our_form,
        "LitServe, images/s": lit,
        "over LitServe": our_form / lit,
        "p99 saturated, ms, ours and LitServe": [
            middle(found[name], "p99_ms") for name in ("saturated, form", "litserve, form")
        ],
        "p99 at half of LitServe's pace, ms, ours and LitServe": [
            found[name]["p99_ms"]
            for name in ("form, at half of LitServe's pace", "litserve, at half of its pace")
        ],
    }
    found["claims"] = {
        "at least 0.9 of the engine": best / (1 - share) / alone >= 0.9,
        "not slower than LitServe": our_form >= lit,
        "its p99 is lower, saturated and at half": all(
            our < their
            for name in ("saturated", "at half of LitServe's pace")
            for our, their in [found["summary"][f"p99 {name}, ms, ours and LitServe"]]
        ),
        "at twice the pace the excess is refused": all(
            one["statuses"].keys() <= {"200", "429", "503"} for one in found["twice"]
        )
        and any("429" in one["statuses"] for one in found["twice"]),
        "what is accepted is answered within the deadline": all(
            one["p99_ms"] <= 1000 * deadline_s for one in found["twice"]
        ),
        "memory is flat": found["memory_mib"][-1] <= 1.02 * found["memory_mib"][0],
    }
    return found


def middle(found: list[dict[str, Any]], name: str) -> float:
    """The median of one figure of several loads."""
    return float(sorted(one[name] for one in found)[len(found) // 2])


async def ask(
    client: httpx.AsyncClient, url: str, photo: bytes, counts: Counter[str], gate: asyncio.Semaphore
) -> None:
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
            if answer.status_code != 200 and (code := answer.json()["error"]["code"]) in REFUSED:
                counts[f"{code}, tried again"] += 1
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
            async with httpx.AsyncClient(
                timeout=60, limits=httpx.Limits(max_connections=32)
            ) as client:
                await _until_ready(port)
                gate = asyncio.Semaphore(32)

                tasks = [
                    asyncio.create_task(ask(client, url, photo, counts, gate))
                    for _ in range(requests)
                ]
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
    answered = ("events", "version", "not connected", *REFUSED)
    found["claims"] = {
        f"{what}: none of {requests} lost": found[what].get("200") == requests
        and all(name == "200" or name.startswith(answered) for name in found[what])
        for what in ("reload", "sigterm")
    }
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
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


@cache
def costly() -> list[bytes]:
    """Small bodies that cost much to take: pictures as large as the server allows by default, a JPEG of ever more scans, and JSON
    whose every element is wrong.
    """
    grey, scans = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((5000, 5000), np.uint16)).save(grey, "png")
    Image.new("CMYK", (2000, 2000)).save(scans, "jpeg", progressive=True)
    jpeg = scans.getvalue()
    last = jpeg[jpeg.rfind(b"\xff\xc4", 0, jpeg.rfind(b"\xff\xda")) : -2]
    zeros = b"0," * 500_000 + b"0"
    return [
        grey.getvalue(),
        jpeg[:-2] + 6000 * last + jpeg[-2:],
        b'{"images": [%b]}' % zeros,
        b'{"inputs": [], "outputs": [%b]}' % zeros,
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [%b]}]}' % zeros,
        b'{"a": ' * 100_000,
    ]


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
        json.dumps(
            {"images": draw.choice([[], [1], ["%%%"], [None], "x", {"a": 1}, [""] * 70, ["A" * 9]])}
        ).encode(),
        b'{"images": ["' + b"[" * 10_000,
        b"[" * 50_000,
        json.dumps({"inputs": [tensor]}).encode(),
        part[:40] + draw.randbytes(50),
        part * 200 + b"--b--\r\n",
        draw.choice(costly()),
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
    return (
        draw.choice(paths),
        draw.choice(bodies),
        draw.choice(kinds[:3]) if draw.random() < 0.7 else draw.choice(kinds),
    )


def from_schema(address: str, requests: int) -> Counter[str]:
    """Requests that schemathesis makes from /openapi.json, right ones and wrong ones, and their statuses."""
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
    """A client that asks for much and reads none of it, until it is cut off or a minute is over."""
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


async def abuse(artifact: str, photo: bytes, requests: int) -> dict[str, Any]:
    """Bad requests of all kinds, then a good one; memory before and after."""
    draw = random.Random(0)
    with ours(artifact, "--read_timeout_s", "2", "--max_body_mb", "4") as (address, process):
        port = int(address.rpartition(":")[2])
        head = b"POST /v1/models/m/predict HTTP/1.1\r\nHost: x\r\n"
        connections = [
            lambda: raw(port, head + b"Content-Length: 1000\r\n\r\nabc", half_close=True),
            lambda: raw(
                port, head + b"Content-Length: 1000\r\n\r\nabc"
            ),  # the rest never comes: 408
            lambda: raw(
                port, head[: draw.randrange(5, len(head))]
            ),  # a head that never ends: closed
            lambda: raw(port, head + b"Content-Length: 99999999\r\n\r\nabc"),
            lambda: raw(port, head + b"Content-Length: -5\r\n\r\nabc"),
            lambda: raw(port, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            lambda: raw(port, head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"),
            lambda: raw(port, draw.randbytes(300)),
            lambda: raw(port, b"GET / HTTP/9.9\r\n\r\n"),
            lambda: raw(
                port, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50_000
            ),  # more than it answers at a time
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
                    answer = await client.post(
                        address + path, content=body, headers={"Content-Type": kind}
                    )
                except httpx.HTTPError as error:
                    counts[type(error).__name__] += 1
                    return
                counts[str(answer.status_code)] += 1
                if answer.status_code >= 500 and answer.status_code != 503:
                    print(answer.status_code, path, kind, body[:80], answer.text[:200], flush=True)
                elif answer.status_code != 200:
                    error = answer.json()["error"]
                    is_kserve = path.startswith("/v2")
                    assert (
                        isinstance(error, str) if is_kserve else error.keys() == {"code", "message"}
                    ), answer.text

        async with httpx.AsyncClient(timeout=60) as client:

            async def still_serves() -> bool:
                await asyncio.sleep(
                    5
                )  # what others have sent, the model and the decoders may finish first
                answers = [
                    await client.post(f"{address}/v1/models/m/predict", content=photo)
                    for _ in range(10)
                ]
                return all(answer.status_code == 200 for answer in answers)

            gate = asyncio.Semaphore(64)
            fifth = requests // 5
            await asyncio.gather(*(one(client, i, gate) for i in range(fifth)))
            serves = [await still_serves()]
            before = memory_mib(process)
            made = await asyncio.to_thread(from_schema, address, fifth)
            serves.append(await still_serves())
            deafs = Counter(
                await asyncio.gather(*(asyncio.to_thread(deaf, port) for _ in range(8)))
            )
            rest = requests - fifth - made.total() - deafs.total()
            await asyncio.gather(*(one(client, i, gate) for i in range(rest)))
            serves.append(await still_serves())
            after = memory_mib(process)
        failures = {
            status for status in {*counts, *made} if status.startswith("5") and status != "503"
        }
        return {
            "answers": dict(counts),
            "answers to schemathesis": dict(made),
            "clients that do not read": dict(deafs),
            "memory_mib": {
                "after a fifth": before,
                "after all": after,
                "at most": peak_memory(process.pid) >> 20,
            },
            "claims": {
                "no 5xx but 503": not failures,
                "clients that do not read are cut off": deafs.keys() == {"cut off"},
                "memory does not grow": after <= 1.1 * before,
                "one client at a time is never too many": "503" not in made and "429" not in made,
                "still serves, after each kind": all(serves) and process.poll() is None,
            },
        }


def look(run: str, photo: Path, out: Path) -> dict[str, Any]:
    """The page after a photo was chosen, with its explanation: light and dark, as wide as a desktop and as a phone."""
    from playwright.sync_api import expect, sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with ours(run) as (address, _), sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for device, (width, height) in {"desktop": (1280, 900), "phone": (390, 844)}.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )  # type: ignore[arg-type]
                page.goto(address)
                page.set_input_files("#file", photo)
                expect(page.locator("article")).to_have_count(1)
                page.get_by_label("Show where it looked").check()
                page.wait_for_timeout(400)  # its transitions
                page.screenshot(path=out / f"{device}-{scheme}.png", full_page=True)
        browser.close()
    return {"pictures": sorted(map(str, out.iterdir()))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("load", "lose", "abuse", "look"))
    parser.add_argument("artifact")
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("pictures"))
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--requests", type=int, default=10_000)
    arguments = parser.parse_args()
    photo: bytes = arguments.photo.read_bytes()
    if arguments.mode == "load":
        found = load(arguments.artifact, arguments.photo, arguments.seconds)
    elif arguments.mode == "lose":
        found = asyncio.run(lose_some(arguments.artifact, photo, arguments.requests))
    elif arguments.mode == "abuse":
        found = asyncio.run(abuse(arguments.artifact, photo, arguments.requests))
    else:
        found = look(arguments.artifact, arguments.photo, arguments.out)
    print(json.dumps(found, indent=2))
    if not all(found.get("claims", {}).values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
