"""The access log: one line for each request."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

KINDS = ("failed", "all", "json", "off")

_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_MAX_PATH = 300
_PROBED = ("/healthz", "/readyz", "/metrics", "/v2/health/")


def request_id(given: bytes) -> str:
    """Return the id of a request.

    Args:
        given: The client's X-Request-ID; empty for none.

    Returns:
        The client's id if it is a plain word, else a new one.
    """
    return given.decode() if _ID.fullmatch(given) else uuid.uuid4().hex


class AccessLog:
    """Writes requests to the standard output. Lines that cannot be written are dropped.

    Args:
        kind: "failed" writes the requests that were refused or failed, except for health checks;
            "all" writes every request, "json" every request as JSON, "off" none.
    """

    def __init__(self, kind: str) -> None:
        assert kind in KINDS, kind
        self.kind = kind

    def __call__(
        self, scope: MutableMapping[str, Any], *, id: str, status: int, code: str, seconds: float
    ) -> None:
        """Write a line about a request.

        Args:
            scope: The request's ASGI scope.
            id: The request's id.
            status: The status of the response; 499 if the client disconnected before it.
            code: The code of the refusal; empty if the request was not refused.
            seconds: The time from the head of the request to the end of the response.
        """
        path = scope.get("raw_path") or b""
        shown = "".join(
            chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}" for byte in path[:_MAX_PATH]
        )
        if self.kind == "off" or (
            self.kind == "failed" and (status < 400 or shown.startswith(_PROBED))
        ):
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": id,
            "client": (scope.get("client") or ["unknown"])[0],
            "method": scope["method"],
            "path": shown,
            "status": status,
            "code": code,
            "seconds": round(seconds, 4),
        }
        if self.kind == "json":
            line = json.dumps(entry)
        else:
            line = "{time} {client} {method} {path} {status} {code} {seconds:.4f} s id={id}".format(
                **entry | {"code": code or "-"}
            )
        with suppress(OSError, ValueError):  # the output may be closed
            print(line, file=sys.stdout, flush=True)
