"""A client of the server that needs only the standard library."""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

from convnextv2.errors import DataError, ServerError

TRIES = 8
"""The number of attempts if a refusal is temporary or the connection breaks."""

_TIMEOUT_S = 60
_LONGEST_WAIT_S = 15.0
_AT_ONCE = 8
_TEMPORARY = (429, 502, 503, 504)
_FILES_FAULT = ("no_image", "not_an_image", "image_too_large", "body_too_large")
"""Codes of refusals that are caused by the file.

The statuses 413 and 415, which proxies send too, are treated in the same way."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirects, which would send the key elsewhere and turn a POST into a GET."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirect becomes an HTTPError."""


_open = urllib.request.build_opener(_NoRedirect).open


def describe_remotely(server: str, model: str, *, api_key: str = "") -> dict[str, Any]:
    """Fetch the description of a model from a server.

    Args:
        server: The address, such as http://127.0.0.1:8000.
        model: The model's name there.
        api_key: The server's key; empty for none.

    Returns:
        The description of its newest version, see `schemas.ModelVersion`; empty if the server
        returns an error. It returns the same error again when images are sent to it.

    Raises:
        ServerError: The address or the key cannot be used.
    """
    _check_server(server)
    _check_key(api_key)
    address = f"{server.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with _open(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_S) as found:
            return dict(json.load(found)["versions"][-1])
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return {}


def predict_remotely(
    server: str,
    model: str,
    images: Sequence[str | Path],
    *,
    top_k: int = 5,
    ask: str = "",
    api_key: str = "",
    on_bad: Callable[[str], None] | None = None,
    wait: Callable[[float], Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Send image files to a server, several at once.

    Args:
        server: The address, such as http://127.0.0.1:8000.
        model: The model's name there.
        images: The files.
        top_k: How many classes of each image to return, if an image has one class.
        ask: For a segmentor or a detector: the last part of the path with its query, such as
            "detect?masks=rle".
        api_key: The server's key; empty for none.
        on_bad: Called with a message about each file that is not an image. The file is skipped.
        wait: Called to sleep for a number of seconds. Tests replace it.

    Yields:
        The prediction of each file, in order, as `predict` returns it; with `ask`, as the server
        returns it.

    Raises:
        ServerError: The refusal is final, or the server does not answer after all attempts.
        DataError: A file is not an image, and there is no `on_bad`.
    """
    _check_server(server)
    _check_key(api_key)
    asked = ask or f"predict?top_k={top_k}"
    address = f"{server.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}/{asked}"
    ended = threading.Event()
    pool = ThreadPoolExecutor(_AT_ONCE)
    pause = wait or ended.wait
    try:
        for answer in [
            pool.submit(_predict_one, address, str(file), api_key, pause, ended.is_set)
            for file in images
        ]:
            try:
                yield answer.result()
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(str(error))
    finally:  # after a failure, the other requests are not retried
        ended.set()
        pool.shutdown(cancel_futures=True)


def _check_key(api_key: str) -> None:
    """Raise ServerError if a header cannot hold the key."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise ServerError(
            "api_key: holds a line break or another character that no header can carry. Give "
            "only the key."
        )


def _check_server(server: str) -> None:
    """Raise ServerError if this is not the address of a server."""
    try:
        parts = urllib.parse.urlsplit(server)
        fits = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not parts.username
        )
        fits = (
            fits
            and not parts.query
            and not parts.fragment
            and server.isascii()
            and not any(map(str.isspace, server))
        )
    except ValueError:  # the port is not a number
        fits = False
    if not fits:
        raise ServerError(f"server = {server}: expected an address such as http://127.0.0.1:8000.")


def _predict_one(
    address: str, file: str, api_key: str, wait: Callable[[float], Any], is_over: Callable[[], bool]
) -> dict[str, Any]:
    """Send one file, and return its prediction.

    Args:
        address: The server's address with path and query.
        file: The image file.
        api_key: The server's key; empty for none.
        wait: Sleeps for a number of seconds.
        is_over: Returns whether the answer is no longer needed.

    Raises:
        DataError: The file is not an image.
        ServerError: The refusal is final, or the server does not answer after all attempts.
    """
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror}).") from None
    if not data:
        raise DataError(f"{file}: is empty. Expected an image.")
    headers = {"Content-Type": "application/octet-stream"} | (
        {"Authorization": f"Bearer {api_key}"} if api_key else {}
    )
    answer = _post(
        urllib.request.Request(address, data, headers, method="POST"), file, wait, is_over
    )
    try:
        found = _read_answer(answer["images"][0])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ServerError(
            f"{address.partition('?')[0]}: returns JSON that is not ours. Is it a convnextv2 "
            "server?"
        ) from None
    return {"image": file, **found}


def _read_answer(found: dict[str, Any]) -> dict[str, Any]:
    """Read the answer for one image: its classes, its labels, its objects or its map."""
    if "objects" in found or "height" in found:
        return {name: value for name, value in found.items() if name != "image"}
    if "labels" not in found:
        best = [
            {"class": str(one["class"]), "prob": float(one["prob"])} for one in found["predictions"]
        ]
        if found.get("possible") is None:
            return {"predictions": best}
        return {
            "predictions": best,
            "possible": [str(name) for name in found["possible"]],
            "foreign": bool(found["foreign"]),
            "foreignness": float(found["foreignness"]),
        }
    return {
        "labels": [
            {
                "name": str(one["name"]),
                "score": float(one["score"]),
                "threshold": float(one["threshold"]),
            }
            for one in found["labels"]
        ],
        "scores": {str(name): float(score) for name, score in found["scores"].items()},
    }


def _post(
    request: urllib.request.Request,
    file: str,
    wait: Callable[[float], Any],
    is_over: Callable[[], bool],
) -> Any:
    """Send a request until it is answered, and return the JSON of the answer."""
    why = ""
    for attempt in range(TRIES):
        pause = min(_LONGEST_WAIT_S, 0.25 * 2**attempt)
        try:
            with _open(request, timeout=_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            why = _why_to_retry(request.host, file, error)
            asked = error.headers.get("Retry-After", "")
            pause = max(pause, min(_LONGEST_WAIT_S, float(asked))) if asked.isdigit() else pause
        except (OSError, ValueError, HTTPException) as error:  # unreachable, cut off, or not JSON
            reason = getattr(error, "reason", error)
            if _is_final(reason):
                raise ServerError(
                    f"{request.host}: cannot be reached ({reason}). Check the address."
                ) from None
            why = str(reason)
        if is_over():
            break
        if attempt < TRIES - 1:
            wait(pause * random.uniform(0.75, 1.25))  # so that many clients do not retry at once
    raise ServerError(
        f"{request.host}: does not answer for {file} after {TRIES} tries ({why}). Is the server "
        "running?"
    )


def _why_to_retry(host: str, file: str, error: urllib.error.HTTPError) -> str:
    """Return the reason of a temporary refusal.

    Args:
        host: The server.
        file: The image file.
        error: The refusal.

    Raises:
        DataError: The file caused the refusal.
        ServerError: The refusal is final.
    """
    code, why = _code_and_message(error)
    if error.code in (413, 415) or code in _FILES_FAULT:
        raise DataError(f"{file}: {why}") from None
    if 300 <= error.code < 400:
        where = error.headers.get("Location", "another address")
        raise ServerError(f"{host}: redirects to {where!r}. Give that server's address.") from None
    if error.code not in _TEMPORARY:
        raise ServerError(f"{host}: refuses {file} ({error.code}): {why}") from None
    return why


def _is_final(reason: object) -> bool:
    """Return whether a retry cannot help: the host does not exist, or TLS fails."""
    if isinstance(reason, ssl.SSLError):
        return (
            isinstance(reason, ssl.SSLCertVerificationError)
            or reason.reason == "WRONG_VERSION_NUMBER"
        )
    return isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME


def _code_and_message(error: urllib.error.HTTPError) -> tuple[str, str]:
    """Return the code and the message of a refusal. Other servers send no code."""
    try:
        found = json.load(error)["error"]
        return str(found["code"]), str(found["message"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return "", str(error.reason)
