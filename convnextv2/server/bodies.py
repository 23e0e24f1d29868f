"""Read the body of a request in each form that the server accepts."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal
from convnextv2.server.schemas import ImagesJson, V2IndexRequest, V2LoadRequest, V2Request

MAX_NUMBERS = 2_000_000
"""The largest number of numbers in the JSON of a request.

Parsing so many takes about half a second, in which nothing else runs. Image files take less."""

_MAX_KEYS = 32
"""The largest number of values in the JSON of a request outside its lists."""

_BLANKS = dict.fromkeys(map(ord, " \t\r\n"))
"""White space that the base64 command and mail programs insert, for `str.translate`."""

# python_multipart logs a warning about each malformed body, without naming the request. The refusal
# and the access log do so.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

Body = TypeVar("Body", bound=BaseModel)


async def read_images(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Read the images in the body of a request, in any form that the server accepts.

    Args:
        request: The request.
        limits: The server's limits.

    Returns:
        The name and the content of each image file, at least one.

    Raises:
        Refusal: The body is of another kind, cannot be read, or holds no images or too many.
    """
    check_encoding(request)
    kind = content_type(request)
    if kind == "multipart/form-data":
        files = await _read_multipart(request, limits)
    elif kind == "application/json":
        parsed = validated(ImagesJson, await request.body(), limits.max_images, "images")
        files = decode_base64(parsed.images, limits)
    elif kind in (
        "application/octet-stream",
        "application/x-www-form-urlencoded",  # the default of curl for a file
        "",
    ) or kind.startswith("image/"):
        body = await request.body()
        files = [("image 0", body)] if body else []
    else:
        raise Refusal(
            415,
            "content_type",
            f"Content-Type {kind[:100]!r}: expected an image, multipart/form-data or "
            "application/json.",
        )
    if not files:
        raise Refusal(400, "no_image", "There is no image in the body.")
    return files


async def _read_multipart(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Read the names and contents of the files in a form."""
    try:
        form = await _InMemory(
            request.headers,
            request.stream(),
            max_files=limits.max_images,
            max_fields=0,
            max_part_size=int(limits.max_body_mb * 1e6),
        ).parse()
        uploads = [part for _, part in form.multi_items() if not isinstance(part, str)]
        files = [
            (plain(part.filename or f"image {i}")[:200], await part.read())
            for i, part in enumerate(uploads)
        ]
        await form.close()
    except (UnicodeError, LookupError):  # the request names an encoding that is wrong or unknown
        raise Refusal(
            400,
            "bad_request",
            "The multipart body cannot be read: its text is of no known encoding.",
        ) from None
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refusal(
                413,
                "too_many_images",
                f"More than {limits.max_images} images. Send them in several requests.",
            ) from None
        why = error.message[:200]
        if "Too many fields" in why:  # of which none are read
            why = "A part is not a file. With curl, write -F images=@FILE."
        raise Refusal(400, "bad_request", f"The multipart body cannot be read: {why}") from None
    return files


class _InMemory(MultiPartParser):
    """A parser that keeps files in memory, since the length of a body is bounded."""

    spool_max_size = 1 << 40


def content_type(request: Request) -> str:
    """Return the type of a request's body, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_encoding(request: Request) -> None:
    """Raise Refusal for a compressed body, because its unpacked size is unknown."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise Refusal(
            415, "content_encoding", f"Content-Encoding {encoding[:50]!r}: send the body as it is."
        )


def validated(form: type[Body], body: bytes, max_values: int, what: str) -> Body:
    """Parse and check a body of JSON.

    The values in its lists are counted before it is parsed, because parsing takes many times the
    memory of the text and blocks the event loop.

    Args:
        form: The model that the body must fit.
        body: The text.
        max_values: The largest number of values in its lists.
        what: A noun for these values, in the plural.

    Returns:
        The parsed body.

    Raises:
        Refusal: It does not fit, or has too many values.
    """
    if body.count(b",") > max_values + _MAX_KEYS:
        code = "too_many_images" if what == "images" else "body_too_large"
        raise Refusal(413, code, f"More than {max_values} {what}. Send them in several requests.")
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Refusal(422, "invalid_value", f"{where[:200]}: {first['msg'][:200]}") from None


def plain(text: str) -> str:
    """Replace unpaired surrogates, which JSON can contain and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def decode_base64(texts: Sequence[Any], limits: Limits) -> list[tuple[str, bytes]]:
    """Decode images that come as text.

    Args:
        texts: Base64, which may be wrapped into lines and may be a data: URI.
        limits: The server's limits.

    Returns:
        A name for each image, and the content of its file.

    Raises:
        Refusal: There are no images or too many, or one is not base64.
    """
    if len(texts) > limits.max_images:
        raise Refusal(
            413,
            "too_many_images",
            f"{len(texts)} images, but a request may have at most {limits.max_images}. Send "
            "several requests.",
        )
    files = []
    for i, text in enumerate(texts):
        try:
            files.append((f"image {i}", _from_base64(text)))
        except (binascii.Error, ValueError, TypeError, AttributeError):
            raise Refusal(
                400,
                "bad_base64",
                f"image {i}: is not base64. Expected the file's bytes so encoded, or a data: URI "
                "of them.",
            ) from None
    if not files:
        raise Refusal(400, "no_image", "There is no image in the body.")
    return files


def _from_base64(text: str) -> bytes:
    """Decode one text. Raises ValueError or a similar error if it is not base64."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError
    return base64.b64decode(text.translate(_BLANKS), validate=True)


def _schema(body: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a body without references, for routes that parse it themselves."""
    schema = body.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return whole(parts[part["$ref"].rpartition("/")[2]])
            return {key: whole(value) for key, value in part.items()}
        return [whole(item) for item in part] if isinstance(part, list) else part

    found: dict[str, Any] = whole(schema)
    return found


IMAGES_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/json": {"schema": _schema(ImagesJson)},
        },
    }
}
V2_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _schema(V2Request)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
INDEX_BODY, LOAD_BODY = (
    {"requestBody": {"required": False, "content": {"application/json": {"schema": _schema(form)}}}}
    for form in (V2IndexRequest, V2LoadRequest)
)
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
