"""MindCV's recipes in tests."""

from pathlib import Path

# MindCV has no default that is offered here for these.
COMPLETE = "model: convnextv2_atto\nopt: adamw\n"


def write(folder: Path, text: str) -> Path:
    """Write a recipe with MindCV's keys."""
    path = folder / "mindcv.yaml"
    path.write_text(text)
    return path
