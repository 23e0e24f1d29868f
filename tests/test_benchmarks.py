"""Scripts that no test runs import only what is there."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in ("benchmarks", "scripts", "docs/_ext")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_names_that_scripts_import_from_the_package_exist(script: Path) -> None:
    tree = ast.parse((ROOT / script).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if node.module is None or node.module.partition(".")[0] != "convnextv2":
            continue
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):  # then it is a module of the package
                importlib.import_module(f"{node.module}.{alias.name}")
