"""A client of our server, with the standard library only."""

from __future__ import annotations

import json
import random
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
"""Of each request, on refusals that say that they are temporary and on connections that break."""

_TIMEOUT_S = 60
_LONGEST_WAIT_S = 15.0
_AT_ONCE = 8
_TEMPORARY = (429, 502, 503, 504)


def predict_remotely(
    server: str,
    model: str,
    images: Sequence[str | Path],
    *,
    top_k: int = 5,
    api_key: str = "",
    on_bad: Callable[[str], None] | None = None,
    wait: Callable[[float], Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Predictions of image files by a server, in order, each as `predict` returns it; some are asked for at once.

    server: its address, as http://127.0.0.1:8000. model: its name there. on_bad: called with what is wrong with a file that is no
    image, which is then left out. wait: sleeps so many seconds; for tests. Raises ServerError where the server refuses for good
    or does not come back, and without on_bad DataError where a file is no image."""
    address = f"{server.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}/predict?top_k={top_k}"
    if not address.startswith(("http://", "https://")):
        raise ServerError(f"server = {server}: expected an address such as http://127.0.0.1:8000.")
    ended = threading.Event()
    pool = ThreadPoolExecutor(_AT_ONCE)
    pause = wait or ended.wait
    try:
        for answer in [pool.submit(_predict_one, address, str(file), api_key, pause, ended.is_set) for file in images]:
            try:
                yield answer.result()
            except DataError as error:
                if on_bad is None:
                    raise
                on_bad(str(error))
    finally:  # where one has failed, nobody waits for the tries of the others
        ended.set()
        pool.shutdown(cancel_futures=True)


def _predict_one(
    address: str, file: str, api_key: str, wait: Callable[[float], Any], is_over: Callable[[], bool]
) -> dict[str, Any]:
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror}).") from None
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    answer = _post(urllib.request.Request(address, data, headers, method="POST"), file, wait, is_over)
    return {"image": file, "predictions": answer["images"][0]["predictions"]}


def _post(
    request: urllib.request.Request, file: str, wait: Callable[[float], Any], is_over: Callable[[], bool]
) -> dict[str, Any]:
    why = ""
    for attempt in range(TRIES):
        pause = min(_LONGEST_WAIT_S, 0.25 * 2**attempt)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                found: dict[str, Any] = json.load(response)
                return found
        except urllib.error.HTTPError as error:
            why = _message(error)
            if error.code in (413, 415):
                raise DataError(f"{file}: {why}") from None
            if error.code not in _TEMPORARY:
                raise ServerError(f"{request.host}: refuses {file} ({error.code}): {why}") from None
            asked = error.headers.get("Retry-After", "")
            pause = max(pause, min(_LONGEST_WAIT_S, float(asked))) if asked.isdigit() else pause
        except (OSError, ValueError, HTTPException) as error:  # not there, broken off, or no JSON
            why = str(getattr(error, "reason", error))
        if is_over():
            break
        if attempt < TRIES - 1:
            wait(pause * random.uniform(0.75, 1.25))  # so that many clients do not come back together
    raise ServerError(f"{request.host}: does not answer for {file} after {TRIES} tries ({why}). Is the server running?")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return str(error.reason)
