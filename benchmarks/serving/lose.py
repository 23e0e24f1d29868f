"""Requests that are lost when a model is replaced or a server is stopped; there should be none."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from servers import free_port

# The codes of requests that were never accepted.
REFUSED = ("queue_full", "not_ready", "shutting_down")


async def ask(
    client: httpx.AsyncClient, url: str, photo: bytes, counts: Counter[str], gate: asyncio.Semaphore
) -> None:
    """Send one request, and count what comes of it.

    A refusal that invites to try again is tried again, as a load balancer or a client would.
    """
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
    """Ask while the model is replaced, then while servers are stopped, again and again.

    Args:
        artifact: The artifact that is served.
        photo: The body of every request.
        requests: The number of requests, of each of the two kinds.

    Returns:
        What was answered, and whether none was lost.
    """
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
