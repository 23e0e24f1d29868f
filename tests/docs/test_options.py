"""The options in every command of every page exist, and their values are allowed.

Nothing is run here, since commands may need data, a server or hours.
"""

import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from convnextv2.arguments import parse
from convnextv2.verbs.options import VERBS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if page.name != "CHANGELOG.md" and not {"reference", "_build"} & set(page.parts)
)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
LANGUAGES = ("bash", "sh", "text", "ini", "")
OURS = re.compile(rf"(?:convnextv2 |python )({'|'.join(VERBS)})(?:\.py)?(?: (.*))?$")
ENDS = {"|", "||", "&&", ">", ";"}


def commands(page: Path) -> list[list[str]]:
    """The verb and the words of each command in the blocks of a page, without `...`."""
    found = []
    blocks = [text for kind, text in BLOCK.findall(page.read_text()) if kind in LANGUAGES]
    for text in blocks:
        for line in text.replace("\\\n", " ").splitlines():
            if command := OURS.search(line):
                words = shlex.split(re.sub(r";.*", "", command[2] or ""), comments=True)
                written = takewhile(lambda word: word not in ENDS, words)
                found.append([command[1], *(word for word in written if word != "...")])
    return found


def test_the_commands_of_most_guides_are_found() -> None:
    assert sum(bool(commands(page)) for page in PAGES) >= 25


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param(page, words, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, words in enumerate(commands(page))
        if words[1:] != ["--help"]
    ],
)
def test_the_options_exist_and_their_values_are_allowed(page: Path, words: list[str]) -> None:
    verb, given = parse(words)
    if "$" in given.get("lr", ""):  # a value of an array of jobs
        given["lr"] = "1e-3"
    if "$" in given.get("block", ""):  # a value of a loop
        given["block"] = "v1"
    options: Any = VERBS[verb].read(given)
    if VERBS[verb].takes_recipe:
        options.recipe("" if Path(str(options.config or "")).suffix else options.config)
