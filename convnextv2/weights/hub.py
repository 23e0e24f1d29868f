"""Downloads public weights by name from the Hugging Face Hub.

A name is OWNER/NAME, such as facebook/convnextv2-tiny-1k-224 or timm/convnextv2_atto.fcmae.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from convnextv2.errors import CheckpointError, MissingPackageError

_WANTED = [
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "*.safetensors",
    "*.safetensors.index.json",
    "open_clip_config.json",
]
_OLDER = ["pytorch_model.bin", "open_clip_pytorch_model.bin"]
"""Files that are downloaded if there is no safetensors file. Code pickled in them is never run."""
_WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait between attempts if the Hub is busy or the connection breaks."""
_TRANSIENT = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request may succeed."""
_TRANSPORTS = ("httpx", "httpcore", "requests", "urllib3")
"""The packages whose errors mean a broken connection, in all versions of the client."""
_UNREACHABLE = frozenset(
    (
        *("ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror"),
        *("NewConnectionError", "NameResolutionError"),
    )
)
"""Errors that mean that there is no network. A user who works offline must not wait for them."""
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_hub_name(source: str) -> bool:
    """Return whether a source denotes a repository on the Hub.

    Args:
        source: The source as the user gave it.

    Returns:
        True for OWNER/NAME, unless it is the name of a weights file or exists in the file system.
    """
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source) is not None
    return is_name and not source.endswith(_FILES) and not Path(source).exists()


def repository_of(folder: Path) -> str:
    """Name the repository that a folder of the Hub's cache was downloaded from.

    Args:
        folder: A folder, such as .../models--OWNER--NAME/snapshots/COMMIT.

    Returns:
        OWNER/NAME; empty for a folder that is not part of the cache.
    """
    kind, *name = (
        folder.parent.parent.name.split("--") if folder.parent.name == "snapshots" else [""]
    )
    return "/".join(name) if kind == "models" else ""


def download(name: str) -> Path:
    """Download a repository of the Hub, unless the cache has it already.

    Args:
        name: OWNER/NAME.

    Returns:
        The local folder.

    Raises:
        CheckpointError: There is no such repository, it has no weights, or there is no network or
            no huggingface_hub.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: no such local file or folder, and for the Hugging Face Hub, "
            f"{MissingPackageError('huggingface_hub', 'hub')}"
        ) from None
    try:
        folder = _snapshot(snapshot_download, name, _WANTED)
        if not any(folder.glob("*.safetensors")):
            folder = _snapshot(snapshot_download, name, _WANTED + _OLDER)
    except Exception as error:  # HTTP, cache and validation each raise errors of their own
        raise CheckpointError(
            f"{name}: no such local file or folder, and cannot be fetched from the Hugging Face "
            f"Hub ({first_line(error)}). Without a network, copy the files of that repository "
            "(config.json, README.md and *.safetensors) to a folder, and name the folder."
        ) from error
    has_older = any((folder / older).is_file() for older in _OLDER)
    if not any(folder.glob("*.safetensors")) and not has_older:
        raise CheckpointError(
            f"{name}: this repository of the Hugging Face Hub has no weights that can be read here "
            f"(*.safetensors or {', '.join(_OLDER)})."
        )
    return folder


def _snapshot(fetch: Callable[..., str], name: str, patterns: list[str]) -> Path:
    return Path(retried(lambda: fetch(name, allow_patterns=patterns, endpoint=endpoint())))


def endpoint() -> str | None:
    """Return the address of the Hub, or of a mirror, from HF_ENDPOINT; None for the usual one.

    huggingface_hub itself reads the variable only when it is imported.
    """
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


Result = TypeVar("Result")


def retried(request: Callable[[], Result]) -> Result:
    """Make a request to the Hub, and repeat it after a while if the failure may be transient.

    The client itself repeats parts of an upload, but not the creation of a repository, the commit
    or the content of a download. All of these may be repeated safely.

    Args:
        request: Makes the request.

    Returns:
        The result of `request`.
    """
    for wait_s in _WAITS_S:
        try:
            return request()
        except Exception as error:
            if not _is_transient(error):
                raise
        time.sleep(wait_s)
    return request()


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the Hub's response; None if there was no response."""
    for one in _causes(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT
    causes = list(_causes(error))
    if any(type(one).__name__ in _UNREACHABLE for one in causes):
        return False
    return any(
        isinstance(one, ConnectionError | TimeoutError)
        or type(one).__module__.startswith(_TRANSPORTS)
        for one in causes
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
