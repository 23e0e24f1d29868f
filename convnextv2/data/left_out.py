"""Handles images that cannot be read: the run fails, leaves them out, or lists them as well."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from convnextv2.data.sampler import Position
from convnextv2.data.source import Source
from convnextv2.errors import DataError, MissingPackageError, RunError, StorageError

BadImages = Literal["fail", "skip", "quarantine"]
Use = Literal["training", "evaluation"]

Failure = str | MissingPackageError | StorageError
"""The reason why an image has no pixels: a fault of the file, of the installation or of the
storage. Workers return it as a value, since an exception would lose its type."""


class Quarantine:
    """The list of images that a run does not read again: `quarantine.jsonl` in its folder.

    Several ranks may add images. A rank sees the images of other ranks after `refresh`.

    Attributes:
        path: The file. It is created with the first image.
        reasons: The name of each image -> the reason why it was listed.
    """

    def __init__(self, folder: Path) -> None:
        """Read the list of a run folder, if it has one."""
        self.path = folder / "quarantine.jsonl"
        self.reasons: dict[str, str] = {}
        content = self.refresh()
        self._is_cut = content[-1:] not in (b"", b"\n")  # a process was killed while it wrote

    def refresh(self) -> bytes:
        """Read the list again, with the images that other ranks have added.

        Returns:
            The content of the file.

        Raises:
            RunError: The file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror}).") from None
        for line in content.splitlines():
            try:
                record = json.loads(line)
                self.reasons.setdefault(record["name"], record["reason"])
            except (
                ValueError,
                KeyError,
                TypeError,
            ):  # the line was cut short by a kill or a full disk
                continue
        return content

    def add(self, name: str, reason: str, use: Use) -> None:
        """Add an image to the list, unless it is listed already.

        Args:
            name: The image's name in its source.
            reason: Why it cannot be read.
            use: The use of the image.

        Raises:
            RunError: The list cannot be written.
        """
        if name in self.reasons:
            return
        self.refresh()  # another rank may have added it
        if name in self.reasons:
            return
        record = json.dumps({"name": name, "reason": reason, "used": use})
        start = "\n" if self._is_cut else ""
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                # One write with O_APPEND is atomic, so lines of several ranks do not mix.
                os.write(file, f"{start}{record}\n".encode())
            finally:
                os.close(file)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}), so {name} is not listed. Free "
                "space or change its permissions; bad_images = skip needs no list."
            ) from None
        self.reasons[name] = reason
        self._is_cut = False


class LeftOut:
    """Leaves out images that cannot be read, or raises an error, and records the reasons.

    Attributes:
        reasons: The name of each image that was left out so far -> the reason.
    """

    def __init__(
        self, source: Source, bad_images: BadImages, use: Use, quarantine: Quarantine | None = None
    ) -> None:
        """Start with an empty record.

        Args:
            source: The images.
            bad_images: "fail" raises an error for the first image that cannot be read, "skip"
                leaves such images out, and "quarantine" also adds them to the run's list.
            use: The use of the images.
            quarantine: The list. Without it, "quarantine" means "skip".
        """
        self.source, self.bad_images, self.use = source, bad_images, use
        self.quarantine = quarantine if bad_images == "quarantine" else None
        self.reasons: dict[str, str] = {}

    def refresh(self) -> None:
        """Read the images that other ranks have added to the list."""
        if self.quarantine is not None:
            self.quarantine.refresh()

    def is_listed(self, index: int) -> bool:
        """Return whether an image is on the list, and record it as left out if so."""
        if self.quarantine is None or not self.quarantine.reasons:
            return False
        name = self.source.names[index]
        reason = self.quarantine.reasons.get(name)
        if reason is not None:
            self.reasons[name] = reason
        return reason is not None

    def without_listed(self, batch: list[Position]) -> list[Position]:
        """Return the positions whose images are not on the list."""
        return [position for position in batch if not self.is_listed(position.index)]

    def judge(self, failures: Mapping[int, Failure]) -> None:
        """Leave out images that failed, or raise an error.

        Args:
            failures: The index of each image -> the reason why it has no pixels.

        Raises:
            DataError: An image cannot be read, and `bad_images` is "fail".
            MissingPackageError: A package is missing. This is an error with all `bad_images`.
            RunError: The list cannot be written.
        """
        for why in failures.values():
            if isinstance(why, MissingPackageError):
                raise why
        for name, reason in self._named(failures):
            if self.bad_images == "fail":
                line = f"{name}: {reason} Repair or replace the file, or set bad_images = skip."
                if self.use == "training":
                    line += " (If it is removed, a run can be resumed with --resume_allow images.)"
                raise DataError(line)
            self.reasons[name] = reason
            if self.quarantine is not None:
                self.quarantine.add(name, reason, self.use)

    def _named(self, failures: Mapping[int, Failure]) -> Iterator[tuple[str, str]]:
        for index, why in failures.items():
            name = self.source.names[index]
            yield name, str(why).removeprefix(f"{name}: ")
