"""Checks of the places that a verb writes to, before any work is done.

A place must be writable. It must not hold something else that would be lost, and must not lie where
the next run of the same command would read it as an image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from convnextv2.errors import RecipeError
from convnextv2.files import reason_of, temporary_folders

_PAGES = (".html", ".htm")
_MARK = b"<!doctype html"


def check_place(path: Path, *, option: str = "out") -> None:
    """Check that a file can be written, and leave nothing behind.

    Args:
        path: The file. Its folder need not exist; this function does not create it.
        option: The option that names it.

    Raises:
        RecipeError: Its folder cannot be made, or nothing can be written there.
    """
    _check_writable(path.parent, f"{option} = {path}")


def check_folder_place(folder: Path, *, option: str = "out") -> None:
    """Check that files can be written in a folder, and leave nothing behind.

    Args:
        folder: The folder. It need not exist; this function does not create it.
        option: The option that names it.

    Raises:
        RecipeError: There is a file of this name, the folder cannot be made, or nothing can be
            written there.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{option} = {folder}: is a file. Give a folder.")
    _check_writable(folder, f"{option} = {folder}")


def _check_writable(folder: Path, named: str) -> None:
    try:
        with temporary_folders(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise RecipeError(
            f"{named}: nothing can be written in {folder} ({reason_of(error)}). Choose another "
            "place."
        ) from error


def check_page(path: Path, example: str) -> None:
    """Check that a page can be written as `out`, and replaces nothing but a page.

    Args:
        path: The file.
        example: A name for it, for the message.

    Raises:
        RecipeError: It is a folder, has another ending, replaces something else, or nothing can be
            written there.
    """
    if path.is_dir():
        raise RecipeError(f"out = {path}: is a folder. Give a file such as {path / example}.")
    if path.suffix.lower() not in _PAGES:
        raise RecipeError(f"out = {path}: expected the name of a page, such as {example}.")
    if (head := start_of(path)) and not head.lstrip().lower().startswith(_MARK):
        raise RecipeError(f"out = {path}: {exists_already('a page')}")
    check_place(path)


def start_of(path: Path) -> bytes:
    """Read the first bytes of a file; nothing if there is no such file."""
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(8192)


def exists_already(kind: str) -> str:
    """Say that a file is not replaced, because it is not what a verb writes.

    Args:
        kind: What the verb writes, such as "a page".
    """
    return f"exists, and is not {kind}, so it is not replaced. Choose another name, or delete it."


def check_unread(path: Path, inputs: Iterable[str | Path], *, option: str = "out") -> None:
    """Check that what is written is not among the images that are read.

    Args:
        path: The file or folder to write.
        inputs: Images, and folders of images, that are read.
        option: The option that names the path.

    Raises:
        RecipeError: It is one of the images, or lies in one of the folders.
    """
    place = path.resolve()
    for given in map(Path, inputs):
        read = given.resolve()
        if not given.is_dir() and place == read:
            raise RecipeError(
                f"{option} = {path}: is an image to be read, which would be replaced. Choose "
                "another name."
            )
        if given.is_dir() and read in (place, *place.parents):
            raise RecipeError(
                f"{option} = {path}: lies in {given}, whose images are read. What is written there "
                "would be read as an image the next time. Choose a place elsewhere."
            )
