"""What the library is compiled from and for, without PyTorch, which no wheel is built with.

A wheel may carry the library compiled for several levels of instructions, of which one is chosen
when it is loaded (`bundled`). Without one, it is compiled for this very processor (`build`).
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import NamedTuple

SOURCES = [
    Path(__file__).with_name(name) for name in ("depthwise.cpp", "gelu_grn.cpp", "pixels.cpp")
]
HEADERS = [Path(__file__).with_name(name) for name in ("bfloat16.h", "memory.h")]
DESCRIPTION = "libraries.json"
"""The file that says, of the libraries beside it, what they are made from, and their SHA-256."""
IS_X86 = platform.machine() in ("x86_64", "AMD64")
# No -ffast-math: linked into a shared library it flushes denormals in the whole process.
FLAGS = "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC".split()


class Level(NamedTuple):
    """A level of instructions for which a wheel carries the library.

    Attributes:
        name: The name that the compiler's option -march= takes.
        needs: The flags in /proc/cpuinfo without which the processor does not have it.
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
"""The levels of each machine, the best first. Those of x86-64 are the System V ABI's."""


def sources_sha256() -> str:
    """Hash the source, by which a library that was made from another one is recognised."""
    contents = [path.read_bytes() for path in (*SOURCES, *HEADERS)]
    return hashlib.sha256(b"\0".join(contents)).hexdigest()


def file_name(level: str) -> str:
    """Return the name of the library for a level."""
    return f"native-{level}.so"
