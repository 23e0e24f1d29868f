"""Read and write KServe's tensors as JSON, or in binary form after the JSON.

The latter is the extension "binary tensor data". A request in this form begins with JSON, whose
length is in the header Inference-Header-Content-Length. The values of each input that has a
`binary_data_size` follow in order. Numbers are little-endian and row by row. Each element of a
BYTES tensor is preceded by its length in four bytes. An answer has the same form if its outputs are
requested in binary form.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from convnextv2.server.bodies import check_encoding, content_type, plain, validated
from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal
from convnextv2.server.schemas import V2Request, V2Tensor, V2Wanted

LENGTH_HEADER = "Inference-Header-Content-Length"
_FOREIGN = ("shared_memory_region", "sequence_id")
"""Parameters of missing extensions. Ignoring them would change the meaning of the request."""

Column = tuple[Literal["FP32", "BYTES"], NDArray[Any]]
"""The datatype and the values of an output."""


async def read_request(http: Request, max_values: int) -> V2Request:
    """Read a request in either form.

    Args:
        http: The request.
        max_values: The largest number of values in its JSON.

    Returns:
        The request. An input in binary form has its bytes as `raw`.

    Raises:
        Refusal: It cannot be understood, or needs a missing extension.
    """
    check_encoding(http)
    length = http.headers.get(LENGTH_HEADER)
    kind = content_type(http)
    if kind not in (
        "application/json",
        "",
        "application/octet-stream" if length is not None else "",
    ):
        raise Refusal(
            415, "content_type", f"Content-Type {kind[:100]!r}: expected application/json."
        )
    body = await http.body()
    end = len(body) if length is None else _json_length(length, body)
    request = validated(V2Request, body[:end], max_values, "numbers")
    _check_extensions(request)
    _assign_binary_data(request.inputs, body[end:])
    return request


def _json_length(length: str, body: bytes) -> int:
    """Read the length of the JSON from the header."""
    is_number = length.isascii() and length.isdigit() and len(length) < 12
    if not is_number or int(length) > len(body):
        raise Refusal(
            400,
            "bad_request",
            f"{LENGTH_HEADER} {length[:20]!r}: expected a length within the body.",
        )
    return int(length)


def _check_extensions(request: V2Request) -> None:
    """Raise Refusal if a parameter belongs to a missing extension."""
    inputs = [tensor.parameters for tensor in request.inputs]
    outputs = [output.parameters for output in request.outputs]
    for parameters in (request.parameters, *inputs, *outputs):
        if foreign := [name for name in _FOREIGN if name in parameters]:
            raise Refusal(
                400,
                "unsupported",
                f"{foreign[0]}: there is no such extension here. Send the tensor's values.",
            )


def _assign_binary_data(inputs: Sequence[V2Tensor], rest: bytes) -> None:
    """Assign to each input in binary form its part of the bytes after the JSON."""
    at = 0
    for tensor in inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            if tensor.data is None:
                raise Refusal(
                    400, "bad_data", f"input {tensor.name}: has neither data nor binary_data_size."
                )
            continue
        if tensor.data is not None:
            raise Refusal(
                400, "bad_data", f"input {tensor.name}: has both data and binary_data_size."
            )
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest) - at:
            raise Refusal(
                400,
                "bad_data",
                f"input {tensor.name}: binary_data_size {str(size)[:20]}, {len(rest) - at} bytes "
                "are left.",
            )
        tensor.raw, at = rest[at : at + size], at + size
    if at != len(rest):
        raise Refusal(400, "bad_data", f"{len(rest) - at} bytes after the JSON belong to no input.")


def elements(raw: bytes, limits: Limits) -> list[bytes]:
    """Split a BYTES tensor in binary form into its elements.

    Args:
        raw: The tensor's bytes.
        limits: The server's limits, with the largest number of images.

    Returns:
        The elements.

    Raises:
        Refusal: The lengths do not fit, or there are too many elements.
    """
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(found) == limits.max_images:
            raise Refusal(
                413,
                "too_many_images",
                f"More than {limits.max_images} images. Send them in several requests.",
            )
        (length,) = struct.unpack_from("<I", raw, at) if at + 4 <= len(raw) else (len(raw),)
        if at + 4 + length > len(raw):
            raise Refusal(
                400,
                "bad_data",
                f"element {len(found)}: is cut short. Expected its length in four bytes, then as "
                "many bytes.",
            )
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def classes_of(probs: NDArray[np.float32], names: Sequence[str], count: int) -> Column:
    """Return an output in the form of the extension "classification".

    Args:
        probs: The probabilities, float32 (N, classes).
        names: The names of the classes.
        count: The number of classes to return for each image.

    Returns:
        "value:index:name" of the most probable classes, strings (N, count).
    """
    best = np.argsort(-probs, axis=1, kind="stable")[:, :count]
    rows = [[f"{probs[n, k]:f}:{k}:{names[k]}" for k in row] for n, row in enumerate(best)]
    return "BYTES", np.array(rows, dtype=object)


def class_count(wanted: V2Wanted) -> int:
    """Return the number of classes that a client wants by the extension "classification".

    Args:
        wanted: The output that the client asks for.

    Returns:
        The number of classes; 0 if all probabilities are wanted.

    Raises:
        Refusal: The value is not a number, or the output is not the probabilities.
    """
    count = wanted.parameters.get("classification")
    if count is None:
        return 0
    if wanted.name != "probs":
        raise Refusal(
            400,
            "bad_request",
            f"output {wanted.name}: has no classes. Ask for the classification of probs.",
        )
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise Refusal(
            400, "bad_request", f"classification {str(count)[:20]}: expected a whole number >= 1."
        )
    return count


def answer(
    request: V2Request, name: str, version: str, columns: Sequence[tuple[V2Wanted, Column]]
) -> Response:
    """Build an answer in the form that the request asks for.

    Args:
        request: The request.
        name: The model's name.
        version: The model's version.
        columns: Each output as it was asked for, and its values.

    Returns:
        JSON, followed by the bytes of the outputs that are wanted in binary form.
    """
    default = request.parameters.get("binary_data_output", False)
    outputs, blocks = [], []
    for wanted, (datatype, values) in columns:
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": datatype,
            "shape": list(values.shape),
        }
        if wanted.parameters.get("binary_data", default) is True:
            block = _packed(datatype, values)
            output["parameters"] = {"binary_data_size": len(block)}
            blocks.append(block)
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    found = {
        "id": plain(request.id),
        "model_name": name,
        "model_version": version,
        "outputs": outputs,
    }
    if not blocks:
        return JSONResponse(found)
    text = json.dumps(found).encode()
    headers = {LENGTH_HEADER: str(len(text))}
    return Response(
        b"".join([text, *blocks]), media_type="application/octet-stream", headers=headers
    )


def _packed(datatype: str, values: NDArray[Any]) -> bytes:
    """Return the values of an output in binary form."""
    if datatype == "FP32":
        return values.astype("<f4").tobytes()
    texts = [text.encode() for text in values.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
