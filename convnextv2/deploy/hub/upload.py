"""Upload a folder to the Hugging Face Hub, with retries of transient failures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from convnextv2.errors import MissingPackageError, RecipeError, ServerError
from convnextv2.weights.hub import endpoint, first_line, retried, status_of

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_STALE = ["onnx/*", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
"""Files of an earlier upload in another format, which are deleted."""


def check_repository(name: str) -> None:
    """Check the name of a repository.

    Raises:
        RecipeError: It is not OWNER/NAME.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or len(name) > 96:
        raise RecipeError(
            f"repository = {name}: expected OWNER/NAME of letters, digits, '.', '-' and '_', such "
            "as me/shoes."
        )


class Uploader:
    """A connection to the Hub, at HF_ENDPOINT if that is set.

    Raises:
        MissingPackageError: huggingface_hub is not installed.
        ServerError: There is no token, or the Hub must not be used (HF_HUB_OFFLINE).
    """

    def __init__(self) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise MissingPackageError("huggingface_hub", "hub") from None
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise ServerError(
                "HF_HUB_OFFLINE is set, so nothing is uploaded. Unset it, or only write the folder "
                "with --dry_run."
            )
        token = os.environ.get("HF_TOKEN") or huggingface_hub.get_token()
        if not token:
            raise ServerError(
                "there is no token for the Hugging Face Hub. Make one that may write, and give it "
                "with: hf auth login, or the environment variable HF_TOKEN. Or only write "
                "the folder with --dry_run."
            )
        self._api: Any = huggingface_hub.HfApi(endpoint=endpoint(), token=token)

    def upload(self, folder: Path, name: str, *, private: bool, revision: str, message: str) -> str:
        """Upload a folder. After an interruption, the same call continues.

        Args:
            folder: The folder.
            name: OWNER/NAME of the repository, which is created if it does not exist.
            private: Whether a new repository is private.
            revision: The branch, which is created if it does not exist; empty for the main one.
            message: The commit message.

        Returns:
            The address of the repository.

        Raises:
            ServerError: The Hub refuses, or cannot be reached after several attempts.
        """
        api = self._api
        try:
            url = retried(
                lambda: api.create_repo(name, repo_type="model", private=private, exist_ok=True)
            )
            if revision:
                retried(lambda: api.create_branch(name, branch=revision, exist_ok=True))
            retried(
                lambda: api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    commit_message=message,
                    revision=revision or None,
                    delete_patterns=_STALE,
                )
            )
        except Exception as error:  # HTTP, transport and validation have different errors
            raise ServerError(_why(name, error)) from error
        return str(url)


def _why(name: str, error: Exception) -> str:
    status = status_of(error)
    why = first_line(error)
    cause = first_line(error.__cause__) if error.__cause__ else why
    if cause not in why:  # the error itself may only name the file
        why = f"{why} {cause}"
    if status == 401:
        return f"{name}: the Hub does not accept the token ({why}). Log in again: hf auth login."
    if status == 403:
        return (
            f"{name}: the token may not write there ({why}). Use a token that may write to it, or "
            "another OWNER."
        )
    return (
        f"{name}: cannot be uploaded ({why}). Start the same command again: it continues where it "
        "stopped."
    )
