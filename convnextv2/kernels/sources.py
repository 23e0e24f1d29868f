"""The sources, the compiler flags and the CPU levels of the compiled kernels.

This module does not import PyTorch, because wheels are built without it. A wheel may carry the
library compiled for several levels of CPU instructions, one of which is chosen when it is loaded
(`bundled`). Otherwise, the library is compiled for the processor of this machine (`build`).
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import NamedTuple

SOURCES = [
    Path(__file__).with_name(f"{noun}.cpp")
    for noun in ("depthwise", "enlarged", "gelu_grn", "pixels")
]
HEADERS = [Path(__file__).with_name(f"{noun}.h") for noun in ("bfloat16", "exponential", "memory")]
DESCRIPTION = "libraries.json"
"""The file beside the libraries that has the SHA-256 of their sources and of each library."""
IS_X86 = platform.machine() in ("x86_64", "AMD64")
# No -ffast-math: linked into a shared library it flushes denormals in the whole process.
FLAGS = "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC".split()


class Level(NamedTuple):
    """A level of instructions for which a wheel carries the library.

    Attributes:
        name: The name that the compiler's option -march= takes.
        needs: The flags in /proc/cpuinfo that every processor of this level has.
    """

    name: str
    needs: frozenset[str]


_V2 = frozenset("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())
_V3 = _V2 | frozenset("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave".split())
_V4 = _V3 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl".split())
LEVELS = {
    "x86_64": (Level("x86-64-v4", _V4), Level("x86-64-v3", _V3), Level("x86-64-v2", _V2)),
    "aarch64": (Level("armv8-a", frozenset(("asimd",))),),
}
"""The levels of each architecture, the best first. The System V ABI defines those of x86-64."""


def sources_sha256() -> str:
    """Return the SHA-256 of the sources, which shows whether a library was built from them."""
    contents = [path.read_bytes() for path in (*SOURCES, *HEADERS)]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def file_name(level: str) -> str:
    """Return the name of the library for a level."""
    return f"native-{level}.so"
