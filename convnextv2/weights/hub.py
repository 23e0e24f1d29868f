"""Public weights by name from the Hugging Face Hub, such as facebook/convnextv2-tiny-1k-224 or timm/convnextv2_atto.fcmae."""

from __future__ import annotations

import re
from pathlib import Path

from convnextv2.errors import CheckpointError, MissingPackageError

_WANTED = [
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "*.safetensors",
    "*.safetensors.index.json",
]
_OLDER = ["pytorch_model.bin"]
"""Fetched where there is no safetensors; opened without running what is pickled in it."""
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_hub_name(source: str) -> bool:
    """OWNER/NAME, and nothing of that name in the file system, nor the name of a weights file."""
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source) is not None
    return is_name and not source.endswith(_FILES) and not Path(source).exists()


def repository_of(folder: Path) -> str:
    """OWNER/NAME of a folder in the Hub's cache (models--OWNER--NAME/snapshots/COMMIT); empty for any other."""
    kind, *name = (
        folder.parent.parent.name.split("--") if folder.parent.name == "snapshots" else [""]
    )
    return "/".join(name) if kind == "models" else ""


def download(name: str) -> Path:
    """The local folder of a repository of the Hub; what was fetched before is not fetched again.

    Raises CheckpointError where there is no such repository, no network, or no huggingface_hub."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: no such local file or folder, and to look on the Hugging Face Hub, "
            f"{MissingPackageError('huggingface_hub', 'hub')}"
        ) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=_WANTED))
        return (
            folder
            if any(folder.glob("*.safetensors"))
            else Path(snapshot_download(name, allow_patterns=_WANTED + _OLDER))
        )
    except Exception as error:  # of any of the layers below: HTTP, cache, validation
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{name}: no such local file or folder, and cannot be fetched from the Hugging Face Hub ({why})."
        ) from error
