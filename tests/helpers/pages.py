"""The messages in docs/how-to/data.md, for the tests that compare the page with the code."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "data.md"


def documented(kind: str) -> dict[str, list[str]]:
    """Read the messages that the page states for each row of a kind, by the name of the row."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(rf'^\| <a id="{kind}-([\w-]+)"></a>[^|]+\|([^|]+)\|', text, re.MULTILINE)
    return {slug: re.findall("`([^`]+)`", said) for slug, said in rows}
