"""The page about other programs names every verb that answers in JSON."""

import re
from pathlib import Path

from convnextv2.recipe.options import own_options
from convnextv2.verbs.options import VERBS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "programs.md"


def test_every_verb_with_json_is_named() -> None:
    listed = re.search(r"takes `--json`:(.*?)\. It then", PAGE.read_text(), re.DOTALL)
    assert listed is not None
    answering = [
        verb
        for verb, options in VERBS.items()
        if any(one.name == "json" for one in own_options(options))
    ]
    assert sorted(re.findall(r"`([a-z_]+)`", listed[1])) == sorted(answering)
