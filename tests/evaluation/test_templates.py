from pathlib import Path

import pytest
from jinja2 import UndefinedError

from convnextv2.evaluation import templates
from convnextv2.evaluation.templates import open_template, readable


def test_values_are_escaped_and_missing_ones_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jinja").write_text("{{ name }} {{ double(2) }}")
    monkeypatch.setattr(templates, "files", lambda package: tmp_path)
    template = open_template("any", "a.jinja", double=lambda number: 2 * number)
    assert template.render(name="<b>") == "&lt;b&gt; 4"
    with pytest.raises(UndefinedError, match="name"):
        template.render()


def test_values_of_knobs_are_readable() -> None:
    assert [readable(value) for value in (None, "", 0.05, True, "auto")] == [
        *("–", "–", "0.05", "True", "auto")
    ]
    assert readable((0.08, 1.0)) == "0.08, 1" and readable([1, None]) == "1, –"
