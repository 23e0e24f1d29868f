"""The server under load with a segmentor or a detector."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from hey import hey
from servers import memory_mib, ours

CLIENTS = 8
DEADLINE_S = 30
ROUNDS = 4


def dense(artifact: str, photo: Path, query: str, seconds: float) -> dict[str, Any]:
    """Measure the pace at saturation, the latency at half of it, and the memory at twice of it.

    Args:
        artifact: A run or an artifact of a segmentor or a detector.
        photo: The image of every request.
        query: What is asked for of each image, as in a URL: "masks=rle&threshold=0.1".
        seconds: How long each load lasts.

    Returns:
        The figures, the answer's size and number of objects, and what is claimed.
    """
    found: dict[str, Any] = {}
    with ours(artifact, "--deadline_s", str(DEADLINE_S)) as (address, process):
        found["memory before, MiB"] = memory_mib(process)
        url = f"{address}{path_of(address)}?{query}"
        found |= size_of_answer(url, photo)
        kind = "application/octet-stream"
        full = hey(url, photo, kind, seconds=seconds, clients=CLIENTS)
        pace = full["per_second"]
        found["saturated"] = full
        found["half"] = hey(url, photo, kind, seconds=seconds, clients=4, rate=pace / 2)
        found["twice"], found["memory_mib"] = [], []
        many = max(64, round(2 * pace * DEADLINE_S))
        for _ in range(ROUNDS):
            found["twice"].append(
                hey(url, photo, kind, seconds=seconds, clients=many, rate=2 * pace)
            )
            found["memory_mib"].append(memory_mib(process))
    memory = found["memory_mib"]
    return {
        **found,
        "claims": {
            "at half of its pace, all are answered": found["half"]["statuses"].keys() == {"200"},
            "at twice its pace, nothing but the excess is refused": all(
                {"200"} <= one["statuses"].keys() <= {"200", "429", "503"} for one in found["twice"]
            ),
            "what is accepted is answered within the deadline": all(
                one["max_ms"] is not None and one["max_ms"] <= 1000 * DEADLINE_S
                for one in found["twice"]
            ),
            # Buffers grow to what such a load needs, so the first one counts as the start.
            "memory is flat": memory[-1] <= 1.05 * memory[0],
        },
    }


def path_of(address: str) -> str:
    """Return the path at which the model answers for images."""
    with urllib.request.urlopen(f"{address}/v1/models/m") as answer:
        [version] = json.load(answer)["versions"]
    verb = {"segmentation": "segment", "detection": "detect"}[version["kind"]]
    return f"/v1/models/m/{verb}"


def size_of_answer(url: str, photo: Path) -> dict[str, int]:
    """Ask once, and measure the answer."""
    request = urllib.request.Request(url, photo.read_bytes(), method="POST")
    request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
    image = json.loads(body)["images"][0]
    return {"answer, bytes": len(body), "objects": len(image.get("objects", []))}
