"""Builds the library from the C++ files in this folder, and caches it.

The name of a cached library has two hashes. The first is of everything that it was built from:
sources, flags, compiler and processor. The second is of the file itself. A file that was truncated
or replaced no longer matches the hash in its name. It is never loaded but built again, because
loading it could kill the process without a message (SIGBUS), or run arbitrary code. One rename puts
the library and its hash in place together, so that concurrent builds cannot mix them up.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from torch.utils.data import get_worker_info

from convnextv2.files import remove_leftovers, scratch_folder
from convnextv2.kernels.folders import cache_folders, distrust
from convnextv2.kernels.sources import FLAGS, HEADERS, IS_X86, SOURCES
from convnextv2.launch import find_launch

_FLAGS = [*FLAGS, *(["-march=native"] * IS_X86)]
_BUILD_LIMIT_S = 120
_DISK = ("No space left on device", "Disk quota exceeded", "Read-only file system")


class _FolderError(Exception):
    """A library cannot be kept in a folder, because of the folder itself."""


def load_library(disagreement: Callable[[ctypes.CDLL], str]) -> ctypes.CDLL | str:
    """Load the cached library, or build and cache it.

    A line on stderr reports each folder that is skipped, and each file that is built again.

    Args:
        disagreement: Returns what a library that was just built computes wrongly; "" if nothing.

    Returns:
        The library, or why there is none.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    words = shlex.split(compiler)  # "ccache g++" is a compiler too
    if not words:
        return "no C++ compiler found"
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        say_once(f"Kernel cache: {line}")

    try:
        key = _key(words)
        for folder in cache_folders(tell):
            remove_leftovers(folder)
            if kept := _load_kept(folder, key, tell):
                return kept
            try:
                return _build(words, folder, key, disagreement)
            except _FolderError as error:
                tell(f"the library cannot be kept in {folder} ({error}).")
    except (OSError, subprocess.SubprocessError) as error:
        return f"{compiler} did not build them: {first_line(error)}"
    return f"no folder can keep them: {told[-1].rstrip('.')}"


def _key(words: list[str]) -> str:
    """Return the hash of everything that a library is built from."""
    version = subprocess.run(
        [*words, "--version"], capture_output=True, check=True, timeout=_BUILD_LIMIT_S
    ).stdout
    sources = [path.read_bytes() for path in (*SOURCES, *HEADERS)]
    parts = [*sources, " ".join(_FLAGS).encode(), version, _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _load_kept(folder: Path, key: str, say: Callable[[str], None]) -> ctypes.CDLL | None:
    """Load the library with this key from a folder, if there is one that is unchanged."""
    for path in sorted(folder.glob(f"native-{key}-*.so")):
        try:
            reason = distrust(path)
            if not reason and path.name == _name(key, path.read_bytes()):
                return ctypes.CDLL(str(path))
            reason = reason or f"{path} has changed since it was built (its SHA-256 differs)"
        except OSError as error:
            reason = f"{path} cannot be used ({first_line(error)})"
        say(f"{reason}, so it is built again.")
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def _build(
    words: list[str], folder: Path, key: str, disagreement: Callable[[ctypes.CDLL], str]
) -> ctypes.CDLL | str:
    """Compile, load, check and keep the library.

    Raises:
        _FolderError: The library cannot be kept in the folder.
        OSError, subprocess.SubprocessError: The compiler does not work.
    """
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_folder(folder / "build"))
        except OSError as error:
            raise _FolderError(first_line(error)) from error
        built = scratch / "native.so"
        try:
            subprocess.run(
                [*words, *_FLAGS, *map(str, SOURCES), "-o", str(built)],
                capture_output=True,
                check=True,
                timeout=_BUILD_LIMIT_S,
                env=os.environ | {"LC_ALL": "C"},  # for _DISK
            )
        except subprocess.CalledProcessError as error:
            if reason := next((text for text in _DISK if text.encode() in error.stderr), ""):
                raise _FolderError(reason) from error
            raise
        try:
            # Load it before the rename: afterwards, another process may replace or remove the file.
            library = ctypes.CDLL(str(built))
        except OSError as error:  # for example in a folder that is mounted with noexec
            raise _FolderError(first_line(error)) from error
        if wrong := disagreement(library):
            return f"what {shlex.join(words)} built does not agree with PyTorch: {wrong}"
        try:
            built.chmod(0o644)  # regardless of the umask: see `distrust`
            with built.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(built, folder / _name(key, built.read_bytes()))
            _sync(folder)
        except OSError as error:
            raise _FolderError(first_line(error)) from error
    return library


def _name(key: str, content: bytes) -> str:
    return f"native-{key}-{hashlib.sha256(content).hexdigest()}.so"


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk, so that they survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _processor() -> bytes:
    """Return what determines the instructions that -march=native enables."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            telling = (b"flags", b"Features", b"model name")
            return b"".join(sorted({line for line in file if line.startswith(telling)}))
    except OSError:
        return platform.processor().encode()


def first_line(error: Exception) -> str:
    """Describe an error of the operating system or of a process in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    detail = getattr(error, "stderr", b"") or str(error).encode()
    lines: Iterable[str] = detail.decode(errors="replace").strip().splitlines()
    return next(iter(lines), type(error).__name__)


def say_once(line: str) -> None:
    """Print a line on stderr, once for all processes of a job on this machine."""
    if find_launch(os.environ).local_rank == 0 and get_worker_info() is None:
        print(line, file=sys.stderr, flush=True)
