"""Downloads public weights by name from the Hugging Face Hub.

A name is OWNER/NAME, such as facebook/convnextv2-tiny-1k-224 or timm/convnextv2_atto.fcmae.
"""

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
"""Downloaded if there is no safetensors file, and opened without running what is pickled in it."""
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def is_hub_name(source: str) -> bool:
    """Return whether a source means a repository of the Hub.

    Args:
        source: What the user gave.

    Returns:
        True for OWNER/NAME, unless it is the name of a weights file or exists in the file system.
    """
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source) is not None
    return is_name and not source.endswith(_FILES) and not Path(source).exists()


def repository_of(folder: Path) -> str:
    """Name the repository that a folder of the Hub's cache was downloaded from.

    Args:
        folder: A folder, such as .../models--OWNER--NAME/snapshots/COMMIT.

    Returns:
        OWNER/NAME; empty for a folder that is not part of the cache.
    """
    kind, *name = (
        folder.parent.parent.name.split("--") if folder.parent.name == "snapshots" else [""]
    )
    return "/".join(name) if kind == "models" else ""


def download(name: str) -> Path:
    """Download a repository of the Hub, unless the cache has it already.

    Args:
        name: OWNER/NAME.

    Returns:
        The local folder.

    Raises:
        CheckpointError: There is no such repository, no network, or no huggingface_hub.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{name}: no such local file or folder, and to look on the Hugging Face Hub, "
            f"{MissingPackageError('huggingface_hub', 'hub')}"
        ) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=_WANTED))
        if any(folder.glob("*.safetensors")):
            return folder
        return Path(snapshot_download(name, allow_patterns=_WANTED + _OLDER))
    except Exception as error:  # HTTP, cache and validation each raise errors of their own
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{name}: no such local file or folder, and cannot be fetched from the Hugging Face "
            f"Hub ({why})."
        ) from error
