"""Decodes mutants by the package and by Pillow, and measures what that costs."""

from __future__ import annotations

import hashlib
import io
import json
import re
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mutations import mutants
from originals import FORMATS
from PIL import Image

from convnextv2.data.decode import decode, from_pillow

MAX_PIXELS = 64_000_000
MEMORY_LIMIT = 4 << 30
"""Bytes of data that a process may have."""


def memory(key: str) -> int:
    """Read VmRSS or VmHWM (the most since the last reset) of this process, in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def measured(decode: Callable[[bytes], object], data: bytes) -> dict[str, object]:
    """Decode one file, and return a digest of its pixels or the error, seconds and bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    try:
        result: dict[str, object] = {"pixels": decode(data)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    result["seconds"] = time.process_time() - began
    result["bytes"] = memory("VmHWM") - before
    return result


def work(kind: str, begin: int, end: int, seed: int, folder: Path | None) -> None:
    """Decode mutants both ways; print a line before and after each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))

    def digest(pixels: torch.Tensor) -> str:
        shown = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        return f"{shown.shape} {hashlib.sha256(shown).hexdigest()}"

    def ours(data: bytes) -> str:
        return digest(decode(data, name="x", max_pixels=MAX_PIXELS))

    def theirs(data: bytes) -> str:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too large")
        return digest(from_pillow(image, 3))

    for number, mutation, data in mutants(kind, begin, end, seed, folder):
        record: dict[str, object] = {"number": number, "mutation": mutation}
        for name, decoder in (("ours", ours), ("theirs", theirs)):
            print(json.dumps({"number": number, "mutation": mutation, "begins": name}), flush=True)
            record[name] = measured(decoder, data)
        print(json.dumps(record), flush=True)
