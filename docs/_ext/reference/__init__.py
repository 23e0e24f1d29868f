"""Writes the pages of docs/reference from the declarations of the package, before the build.

A verb's options come from `verbs/options/`, the knobs from `recipe/groups/`, the recipes from
configs/, and the public names from `convnextv2.__all__`. The pages are git-ignored. What has no
docstring or no help fails the build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import convnextv2
from convnextv2 import errors
from convnextv2.verbs.options import VERBS
from reference.knobs import GROUPS, group_page, knob_index, recipe_page
from reference.markup import slug, to_rst
from reference.python import error_page, other_page, public_page, python_index
from reference.verbs import verb_index, verb_page


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference"))
    # Before napoleon, which finds types by the colons outside code.
    app.connect("autodoc-process-docstring", to_rst, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Write all pages; those that stay the same keep their time, so that they are not built again.

    Args:
        folder: docs/reference.
    """
    pages = {
        **{f"verbs/{name}.md": verb_page(options) for name, options in VERBS.items()},
        "verbs/index.md": verb_index(),
        **{f"knobs/{slug(group)}.md": group_page(group) for group in GROUPS},
        "knobs/index.md": knob_index(),
        "recipes.md": recipe_page(),
        **{f"python/{name}.md": public_page(name) for name in convnextv2.__all__},
        "python/errors.md": error_page(errors),
        "python/others.md": other_page(),
        "python/index.md": python_index(),
    }
    for old in ("verbs", "knobs", "python"):
        for path in (folder / old).glob("*.md"):
            if f"{old}/{path.name}" not in pages:
                path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
