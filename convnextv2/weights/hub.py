"""Public weights by name from the Hugging Face Hub, such as facebook/convnextv2-tiny-1k-224 or timm/convnextv2_atto.fcmae."""

from __future__ import annotations

import re
from pathlib import Path

from convnextv2.errors import CheckpointError, MissingPackageError

_WANTED = ["config.json", "preprocessor_config.json", "README.md", "*.safetensors", "*.safetensors.index.json"]


def is_hub_name(source: str) -> bool:
    """OWNER/NAME, and nothing of that name in the file system."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source) is not None and not Path(source).parent.exists()


def repository_of(folder: Path) -> str:
    """OWNER/NAME of a folder in the Hub's cache (models--OWNER--NAME/snapshots/COMMIT); empty for any other."""
    kind, *name = folder.parent.parent.name.split("--") if folder.parent.name == "snapshots" else [""]
    return "/".join(name) if kind == "models" else ""


def download(name: str) -> Path:
    """The local folder of a repository of the Hub; what was fetched before is not fetched again.

    Raises MissingPackageError without huggingface_hub, CheckpointError where there is no such repository or no network."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingPackageError("huggingface_hub", "hub") from None
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # of any of the layers below: HTTP, cache, validation
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{name}: cannot be fetched from the Hugging Face Hub ({why}). Without a network, give a file or folder."
        ) from error
