"""Images in base64 as people have it, and what forms write on the error output."""

import base64
import logging
from typing import Any

import pytest
from python_multipart.multipart import MultipartParser

from convnextv2.server.bodies import decode_base64
from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

pytestmark = pytest.mark.anyio


def test_wrapped_base64_and_data_uris_are_read(images: list[bytes]) -> None:
    plain = base64.b64encode(images[0]).decode()
    wrapped = base64.encodebytes(images[0]).decode()
    assert wrapped.count("\n") > 10
    texts = [
        plain,
        wrapped,
        wrapped.replace("\n", "\r\n"),
        f" {plain}\t",
        f"data:image/jpeg;base64,{plain}",
    ]
    texts += [f"data:;base64,{plain}", f"DATA:image/jpeg;charset=utf-8;BASE64,{wrapped}"]
    assert [data for _, data in decode_base64(texts, Limits())] == [images[0]] * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "data:image/jpeg,abcd",
        "data:image/jpeg;base64",
        "AAA",
        "A-_A",
        "AA=A",
        None,
        7,
        ["AAAA"],
        "é",
    ],
)
def test_other_texts_are_refused_with_what_is_expected(text: Any) -> None:
    with pytest.raises(
        Refusal,
        match="image 0: is not base64. Expected the file's bytes so encoded, or a data: URI",
    ):
        decode_base64([text], Limits())


def test_the_parser_of_forms_warns_of_nothing() -> None:
    parser = MultipartParser(b"b")
    assert not parser.logger.isEnabledFor(logging.WARNING)
