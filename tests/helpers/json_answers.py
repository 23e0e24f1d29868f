"""Reads what a verb printed with --json, and compares it with the declaration of the answer."""

import json
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from convnextv2.verbs.answers import ANSWERS


def read_answer(verb: str, out: str) -> Any:
    """The answer in an output that holds nothing else, checked strictly; a list for lines."""
    kind, form = ANSWERS[verb]

    def no_constant(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = [json.loads(line, parse_constant=no_constant) for line in out.splitlines()]
    if form == "object":
        (content,) = lines
        check(kind, content)
        return content
    if form == "array":
        (lines,) = lines
    for content in lines:
        check(kind, content)
    return lines


def check(kind: Any, content: Any) -> None:
    """All declared keys with the declared types, and no others."""
    TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    declared = get_type_hints(kind)
    assert content.keys() <= declared.keys(), content.keys() - declared.keys()
    for name, value in content.items():
        if is_typeddict(declared[name]):
            check(declared[name], value)
