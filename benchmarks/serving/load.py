"""Pace, latency and memory under load, beside the engine alone and LitServe."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch
from hey import hey
from servers import MAX_BATCH, memory_mib, ours, theirs

from convnextv2.data.decode import decode
from convnextv2.inference.scorer import open_scorer

CLIENTS = 64
DEADLINE_S = 5


@dataclass(frozen=True)
class Body:
    """The file that every request sends, and its content type."""

    path: Path
    kind: str


def load(artifact: str, photo: Path, seconds: float) -> dict[str, Any]:
    """Measure the pace at saturation, then the latency at half of that pace and at twice of it.

    Slow models get more seconds and fewer clients, so that each load has some hundreds of answers
    and no more requests wait than can be answered.

    Args:
        artifact: The artifact that is served.
        photo: The image of every request.
        seconds: How long each load lasts at least.
    """
    seconds = max(seconds, 5 * CLIENTS / engine_alone(artifact, photo, seconds))
    with tempfile.TemporaryDirectory() as folder:
        raw = Body(photo, "application/octet-stream")
        form = form_of(photo, Path(folder))
        rounds = [saturate(artifact, raw, form, seconds) for _ in range(3)]
        pace = median([one["raw"]["per_second"] for one in rounds])
        lit_pace = median([one["litserve"]["per_second"] for one in rounds])
        clients = max(8, min(32, round(pace / 10)))
        ours_then = below_and_above(artifact, raw, form, seconds, pace, lit_pace, clients)
        with theirs(artifact) as (address, _):
            send(f"{address}/predict", form, seconds=2)
            lit_half = send(
                f"{address}/predict", form, seconds=seconds, clients=clients, rate=lit_pace / 2
            )
    found = {"rounds": rounds, **ours_then, "litserve at half of its pace": lit_half}
    summary = summarise(rounds, pace, lit_pace, ours_then["form at half of LitServe's"], lit_half)
    return {**found, "summary": summary, "claims": claims(summary, ours_then)}


def saturate(artifact: str, raw: Body, form: Body, seconds: float) -> dict[str, Any]:
    """Measure the engine alone, then what the two servers answer at most."""
    found: dict[str, Any] = {"engine alone": engine_alone(artifact, raw.path, seconds)}
    # LitServe has no deadline, and refusing takes processors too.
    with ours(artifact, "--deadline_s", "60") as (address, _):
        url = f"{address}/v1/models/m/predict"
        send(url, raw, seconds=2)
        found["raw"] = send(url, raw, seconds=seconds)
        found["form"] = send(url, form, seconds=seconds)
    with theirs(artifact) as (address, _):
        send(f"{address}/predict", form, seconds=2)
        found["litserve"] = send(f"{address}/predict", form, seconds=seconds)
    return found


def below_and_above(
    artifact: str,
    raw: Body,
    form: Body,
    seconds: float,
    pace: float,
    lit_pace: float,
    clients: int,
) -> dict[str, Any]:
    """Measure our server at half of its pace, at half of LitServe's, and three times at twice.

    Args:
        artifact: The artifact that is served.
        raw: The photo as the body.
        form: The photo in a form.
        seconds: How long each load lasts.
        pace: What our server answers at most, in requests/s.
        lit_pace: What LitServe answers at most.
        clients: Clients that ask at the same time, at half of a pace.
    """
    found: dict[str, Any] = {}
    waiting = min(256, pace * DEADLINE_S / 2)  # what our server lets wait
    many = max(64, round(3 * waiting))
    with ours(artifact, "--deadline_s", str(DEADLINE_S)) as (address, process):
        url = f"{address}/v1/models/m/predict"
        found["half"] = send(url, raw, seconds=seconds, clients=clients, rate=pace / 2)
        found["form at half of LitServe's"] = send(
            url, form, seconds=seconds, clients=clients, rate=lit_pace / 2
        )
        # Buffers grow to what such a load needs, so the first one is not counted.
        send(url, raw, seconds=seconds, clients=many, rate=2 * pace)
        found["memory_mib"] = [memory_mib(process)]
        found["twice"] = []
        for _ in range(3):
            found["twice"].append(send(url, raw, seconds=seconds, clients=many, rate=2 * pace))
            found["memory_mib"].append(memory_mib(process))
    return found


def summarise(
    rounds: list[dict[str, Any]],
    pace: float,
    lit_pace: float,
    our_half: dict[str, Any],
    lit_half: dict[str, Any],
) -> dict[str, Any]:
    """Put the medians of the rounds beside one another."""
    alone = median([one["engine alone"] for one in rounds])
    hey_share = median([one["raw"]["hey_share"] for one in rounds])
    form_pace = median([one["form"]["per_second"] for one in rounds])
    return {
        "engine alone, images/s": alone,
        "saturated, images/s": pace,
        "share of the engine": pace / alone,
        "share of the engine with the processors that hey left": pace / (1 - hey_share) / alone,
        "as a form, images/s": form_pace,
        "LitServe, images/s": lit_pace,
        "over LitServe": form_pace / lit_pace,
        "p99 saturated, ms, ours and LitServe": [
            median([one[name]["p99_ms"] for one in rounds]) for name in ("form", "litserve")
        ],
        "p99 at half of LitServe's pace, ms, ours and LitServe": [
            our_half["p99_ms"],
            lit_half["p99_ms"],
        ],
    }


def claims(summary: dict[str, Any], ours_then: dict[str, Any]) -> dict[str, bool]:
    """Say what the documentation claims, and whether it held."""
    twice, memory = ours_then["twice"], ours_then["memory_mib"]
    share = summary["share of the engine with the processors that hey left"]
    saturated = summary["p99 saturated, ms, ours and LitServe"]
    half = summary["p99 at half of LitServe's pace, ms, ours and LitServe"]
    return {
        "at least 0.9 of the engine": share >= 0.9,
        "not slower than LitServe": summary["over LitServe"] >= 1,
        "its p99 is lower, saturated and at half": saturated[0] < saturated[1]
        and half[0] < half[1],
        "at twice the pace the excess is refused": all(
            one["statuses"].keys() <= {"200", "429", "503"} for one in twice
        )
        and any("429" in one["statuses"] for one in twice),
        "what is accepted is answered within the deadline": all(
            one["p99_ms"] <= 1000 * DEADLINE_S for one in twice
        ),
        "memory is flat": memory[-1] <= 1.02 * memory[0],
    }


def engine_alone(artifact: str, photo: Path, seconds: float) -> float:
    """Score batches while threads decode the next ones, without a server, and return images/s."""
    scorer = open_scorer(artifact)
    transform, data = scorer.transform, photo.read_bytes()

    def prepare(_: int) -> torch.Tensor:
        channels = transform.preprocessing.channels
        return transform(decode(data, name="photo", channels=channels, max_pixels=10**9))

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


def form_of(photo: Path, folder: Path) -> Body:
    """Write a multipart body with the photo."""
    files = {"image": ("a.jpg", photo.read_bytes(), "image/jpeg")}
    request = httpx.Request("POST", "http://x", files=files)
    (folder / "form").write_bytes(request.read())
    return Body(folder / "form", request.headers["content-type"])


def send(
    url: str, body: Body, *, seconds: float, clients: int = CLIENTS, rate: float | None = None
) -> dict[str, Any]:
    """Send a body with `hey`."""
    return hey(url, body.path, body.kind, seconds=seconds, clients=clients, rate=rate)
