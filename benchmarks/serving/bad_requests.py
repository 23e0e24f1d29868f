"""Requests that a server must refuse or survive."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image


def bomb(width: int, height: int) -> bytes:
    """Make a small PNG that claims to be of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


@cache
def costly() -> list[bytes]:
    """Make small bodies that cost a server much.

    They are an image as large as the server allows by default, a JPEG with thousands of scans, and
    JSON whose every element is wrong.
    """
    grey, scans = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((5000, 5000), np.uint16)).save(grey, "png")
    Image.new("CMYK", (2000, 2000)).save(scans, "jpeg", progressive=True)
    jpeg = scans.getvalue()
    last = jpeg[jpeg.rfind(b"\xff\xc4", 0, jpeg.rfind(b"\xff\xda")) : -2]
    zeros = b"0," * 500_000 + b"0"
    return [
        grey.getvalue(),
        jpeg[:-2] + 6000 * last + jpeg[-2:],
        b'{"images": [%b]}' % zeros,
        b'{"inputs": [], "outputs": [%b]}' % zeros,
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [%b]}]}' % zeros,
        b'{"a": ' * 100_000,
    ]


def bad_request(photo: bytes, rng: random.Random) -> tuple[str, bytes, str]:
    """Draw a request that should be refused, or at least survived.

    Args:
        photo: An image, which is damaged or cut.
        rng: The random numbers.

    Returns:
        Its path, body and content type.
    """
    damaged = bytearray(photo)
    for _ in range(rng.randint(1, 40)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    tensor = {
        "name": "pixels",
        "shape": rng.choice([[1], [-1, 64, 64, 3], [2**40, 2, 2, 3], []]),
        "datatype": rng.choice(["UINT8", "BYTES", "FP64", 3]),
        "data": rng.choice([[], [300], ["a"], [[1]], [1e99]]),
    }
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n'
    bodies = [
        bytes(damaged),
        photo[: rng.randrange(len(photo))],
        b"",
        rng.randbytes(rng.randint(1, 5000)),
        bomb(60_000, 60_000),
        bomb(2**31 - 1, 1),
        b"GIF89a" + rng.randbytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + rng.randbytes(60),
        b"II*\x00\x08\x00\x00\x00" + rng.randbytes(200),
        json.dumps(
            {"images": rng.choice([[], [1], ["%%%"], [None], "x", {"a": 1}, [""] * 70, ["A" * 9]])}
        ).encode(),
        b'{"images": ["' + b"[" * 10_000,
        b"[" * 50_000,
        json.dumps({"inputs": [tensor]}).encode(),
        part[:40] + rng.randbytes(50),
        part * 200 + b"--b--\r\n",
        rng.choice(costly()),
    ]
    kinds = [
        "application/octet-stream",
        "application/json",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain",
        "",
        "image/jpeg",
        "application/json; charset=utf-16",
        "bad",
        "multipart/form-data; boundary=" + "b" * 500,
    ]
    predict = "/v1/models/m/predict"
    paths = [
        *[predict] * 8,
        *["/v2/models/m/infer"] * 2,
        f"{predict}?top_k=-1",
        f"{predict}?top_k=nan&threshold=inf",
        f"{predict}?explanation=maybe",
        "/v1/models/x/predict",
        "/v1/models/m/reconstruct",
        "/v1/models/m/versions/9/predict",
        "/v2/models/%00/infer",
        "/v1/models/..%2f..%2fetc/predict",
        "/page/..%2f..%2fapp.py",
        "/nothing",
    ]
    return (
        rng.choice(paths),
        rng.choice(bodies),
        rng.choice(kinds[:3]) if rng.random() < 0.7 else rng.choice(kinds),
    )
