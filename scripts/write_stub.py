"""Writes `convnextv2/__init__.pyi`, which tells editors and type checkers what the verbs take.

    python scripts/write_stub.py

A test keeps the file and the declarations in step.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import convnextv2
from convnextv2.cli import load_verb
from convnextv2.recipe.options import REQUIRED, Options, PathLike, borrowed_options, own_options
from convnextv2.recipe.values import Option
from convnextv2.verbs.options import VERBS

_COLUMNS = 100
_HEAD = '''"""What the public face takes and returns. Made by scripts/write_stub.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from convnextv2.auditing.page import AuditReport
from convnextv2.inference.predictor import Predictor as Predictor
from convnextv2.errors import ConvNeXtV2Error as ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2 as ConvNeXtV2
from convnextv2.model.convnext import create_model as create_model
from convnextv2.model.fcmae import FCMAE as FCMAE
from convnextv2.run import Run
from convnextv2.tasks.measure import AnyEvaluation
from convnextv2.data.shards.pack import Packed
from convnextv2.evaluation.probes import Probed
from convnextv2.verbs.replay import Replayed
from convnextv2.weights.opened import Weights

__version__: str
__all__: list[str]
'''


def stub() -> str:
    """Return the text of the stub."""
    return _HEAD + "".join(_function(options) for options in VERBS.values())


def _function(options: type[Options]) -> str:
    """Write a function with its signature and docstring."""
    function = load_verb(options.command)
    own = own_options(options)
    lines = []
    for one in own:
        if one.is_positional:
            lines.append(_parameter(one, PathLike | one.kind if one.is_many else one.kind))
    named = [one for one in own if not one.is_positional] + borrowed_options(options)
    if named:
        lines.append("    *,")
    lines += [_parameter(one, one.kind) for one in named]
    inside = "\n" + "\n".join(lines) + "\n" if lines else ""
    returns = inspect.unwrap(function).__annotations__["return"]
    doc = "\n".join(
        _wrapped(f"    {line}") for line in (inspect.getdoc(function) or "").splitlines()
    )
    return f'\ndef {options.command}({inside}) -> {returns}:\n    """{doc.strip()}\n    """\n'


def _wrapped(line: str) -> str:
    """Wrap a line of a docstring. What belongs to an argument is indented further."""
    indent = line[: len(line) - len(line.lstrip())]
    hanging = indent + "    " * bool(re.match(r"        \w+: ", line))
    return textwrap.fill(
        line.strip(), _COLUMNS, initial_indent=indent, subsequent_indent=hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _parameter(one: Option, kind: Any) -> str:
    default = "" if one.default is REQUIRED else f" = {_quoted(repr(one.default))}"
    annotation = _annotation(kind)
    line = f"    {one.name}: {annotation}{default},"
    if len(line) <= _COLUMNS or "[" not in annotation:
        return line
    before, _, inside = annotation.partition("[")
    inside, _, after = inside.rpartition("]")
    choices = textwrap.fill(
        f"{inside},", _COLUMNS, initial_indent=" " * 8, subsequent_indent=" " * 8
    )
    return f"    {one.name}: {before}[\n{choices}\n    ]{after}{default},"


def _annotation(kind: Any) -> str:
    """An annotation as one writes it. Text may be a path, as a knob's name does not tell."""
    if kind is str:
        return "str | Path"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [part for one in typing.get_args(kind) for part in _annotation(one).split(" | ")]
        return " | ".join(dict.fromkeys(parts))
    text = (
        "None"
        if kind is types.NoneType
        else kind.__name__
        if kind in (int, float, bool, Path)
        else str(kind)
    )
    return _quoted(re.sub(r"(typing|pathlib(\._local)?|collections\.abc)\.", "", text))


def _quoted(text: str) -> str:
    return text.replace("'", '"')


def main() -> None:
    """Write the file."""
    Path(convnextv2.__file__).with_suffix(".pyi").write_text(stub(), encoding="utf-8")


if __name__ == "__main__":
    main()
