"""Loads the compiled kernels that a wheel carries for several levels of CPU instructions.

The best level that this processor supports is used. The libraries are not linked to an OpenMP
runtime. They call the one that PyTorch has loaded, so that both share one pool of threads. It may
be libgomp, which some wheels rename, or the runtime of LLVM or Intel, which has the same functions.
A library that is damaged, was built from other sources or does not agree with PyTorch is not used,
and a line on stderr says so. The kernels are then compiled, as without such a wheel.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convnextv2.errors import DeviceError
from convnextv2.kernels.build import first_line, say_once
from convnextv2.kernels.sources import DESCRIPTION, LEVELS, file_name, sources_sha256
from convnextv2.machine import processor_flags

FOLDER = Path(__file__).with_name("prebuilt")
"""The folder of a wheel into which `hatch_build.py` puts the libraries and `libraries.json`."""
LEVEL = "CONVNEXTV2_LEVEL"
"""The environment variable that names another level, or "native" to compile."""


class _UnfitError(Exception):
    """A library cannot be used."""


def load_bundled(
    disagreement: Callable[[ctypes.CDLL], str], folder: Path = FOLDER
) -> tuple[ctypes.CDLL, str] | None:
    """Load the best library for this processor that the wheel carries.

    Args:
        disagreement: Returns what a library computes wrongly; "" if nothing.
        folder: The folder of the libraries.

    Returns:
        The library and its level; None if there is none, or none that can be used. In the latter
        case, a line on stderr says why.

    Raises:
        DeviceError: CONVNEXTV2_LEVEL names a level that is unknown or that this processor does not
            support, or this installation carries no libraries.
    """
    asked = os.environ.get(LEVEL, "")
    known = levels_here()
    if asked not in ("", "native", *known):
        raise DeviceError(
            f"{LEVEL} = {asked}: expected one of {', '.join((*known, 'native'))}, which this "
            "processor supports."
        )
    if asked == "native":
        return None
    if not folder.is_dir():
        if asked:
            raise DeviceError(
                f"{LEVEL} = {asked}: this installation carries no libraries. Install a wheel for "
                f"this machine, or unset {LEVEL} to compile."
            )
        return None
    try:
        libraries = _read(folder)
        level = next((one for one in ([asked] if asked else known) if one in libraries), "")
        if not level:
            raise _UnfitError(f"{folder} has no library for {asked or 'this processor'}")
        path = folder / file_name(level)
        if hashlib.sha256(path.read_bytes()).hexdigest() != libraries[level]:
            raise _UnfitError(f"{path} has changed since it was built (its SHA-256 differs)")
        _open_runtime()
        library = ctypes.CDLL(str(path))
        if wrong := disagreement(library):
            raise _UnfitError(f"{path} does not agree with PyTorch: {wrong}")
    except (_UnfitError, OSError) as error:
        reason = str(error) if isinstance(error, _UnfitError) else first_line(error)
        say_once(f"Bundled kernels: {reason}, so they are compiled here if possible.")
        return None
    return library, level


def levels_here() -> list[str]:
    """Return the levels that this processor supports, the best first."""
    flags = processor_flags()
    return [level.name for level in LEVELS.get(platform.machine(), ()) if level.needs <= flags]


def _read(folder: Path) -> dict[str, Any]:
    """Read the SHA-256 of each library, by level, from the description beside them.

    Raises:
        _UnfitError: The description cannot be read, or the libraries were built from other sources.
        OSError: There is no description.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
        libraries: dict[str, Any] = dict(description["libraries"])
        if description["sources_sha256"] != sources_sha256():
            raise _UnfitError(f"the libraries in {folder} were built from other sources")
    except (ValueError, KeyError, TypeError) as error:
        raise _UnfitError(f"{path} cannot be read ({type(error).__name__})") from None
    return libraries


def _open_runtime() -> None:
    """Make the functions of PyTorch's OpenMP runtime visible to libraries that are loaded later.

    Raises:
        _UnfitError: PyTorch has loaded no OpenMP runtime.
    """
    with open("/proc/self/maps", errors="replace") as file:
        lines = [line.rstrip("\n").split(maxsplit=5) for line in file]
    paths = {words[5] for words in lines if len(words) == 6}
    runtimes = sorted(path for path in paths if re.match(r"lib(gomp|iomp5|omp)[-.]", _last(path)))
    if not runtimes:
        raise _UnfitError("PyTorch has loaded no OpenMP runtime")
    # Other packages, such as scikit-learn, may have brought one of their own.
    home = str(Path(torch.__file__).parent)
    ours = [path for path in runtimes if path.startswith((f"{home}/", f"{home}.libs/"))]
    ctypes.CDLL((ours or runtimes)[0], mode=ctypes.RTLD_GLOBAL)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
