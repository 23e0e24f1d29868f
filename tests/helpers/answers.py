"""The requests that tests of the server send, and the checks of its answers."""

import base64
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

PREDICT = "/v1/models/trees/predict"
INFER = "/v2/models/trees/infer"
JPEG = {"Content-Type": "image/jpeg"}
Serve = Callable[..., Awaitable[Any]]
Probs = list[dict[str, float]]


def check(response: httpx.Response, expected: Probs) -> list[dict[str, Any]]:
    """Check that images are predicted as expected, and return them as the answer has them."""
    assert response.status_code == 200, response.text
    images = response.json()["images"]
    assert [probs(image) for image in images] == [pytest.approx(one, abs=1e-5) for one in expected]
    return images


def probs(image: dict[str, Any]) -> dict[str, float]:
    """Return the probability of each class."""
    return {entry["class"]: entry["prob"] for entry in image["predictions"]}


def check_refused(
    response: httpx.Response, status: int, code: str, retry_after_s: int | None = None
) -> str:
    """Check that a request is refused in this way, and return the message."""
    assert response.status_code == status, response.text
    assert response.headers.get("Retry-After") == (
        None if retry_after_s is None else str(retry_after_s)
    )
    assert response.headers["X-Error-Code"] == code and response.json().keys() == {"error"}
    error = response.json()["error"]
    if str(response.request.url.path).startswith("/v2"):  # KServe's protocol has only the message
        assert isinstance(error, str)
        return error
    assert error.keys() == {"code", "message"} and error["code"] == code
    return error["message"]


def text(data: bytes) -> str:
    """Encode bytes in base64."""
    return base64.b64encode(data).decode()


def parts(images: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Make the parts of a form from images, as httpx takes them."""
    return [("images", (f"{i}.jpg", image, "image/jpeg")) for i, image in enumerate(images)]


def v2(datatype: str, shape: list[int], data: list[Any], **more: Any) -> dict[str, Any]:
    """Make the JSON of a request by KServe's protocol."""
    name = "pixels" if datatype == "UINT8" else "image_files"
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]} | more


def bomb(side: int) -> bytes:
    """Make a PNG that ends after a header, which promises a square of this side."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\1\0IDAT"
    )


async def chunks(many: int, size: int = 400) -> AsyncIterator[bytes]:
    """Yield the chunks of a body."""
    for _ in range(many):
        yield b"x" * size
