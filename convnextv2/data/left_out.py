"""What is left out of the batches: images that cannot be read."""

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
"""Why there are no pixels: what is wrong with the file, with what is installed, or with what it
lies on. Workers send it as a value, since exceptions lose their type on the way."""


class Quarantine:
    """The list of images that a run does not read again, `quarantine.jsonl` in its folder.

    Several ranks may add to it. What one of them adds the others see when they call `refresh`.

    Attributes:
        path: The list. It is not there before the first image.
        reasons: Name -> why it was put there.
    """

    def __init__(self, folder: Path) -> None:
        """Read the list of a run folder, if it has one."""
        self.path = folder / "quarantine.jsonl"
        self.reasons: dict[str, str] = {}
        content = self.refresh()
        self._is_cut = content[-1:] not in (b"", b"\n")  # by a kill

    def refresh(self) -> bytes:
        """Read what is on the list by now.

        Returns:
            All of it.

        Raises:
            RunError: It cannot be read.
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
            except (ValueError, KeyError, TypeError):  # a kill or a full disk cut it short
                continue
        return content

    def add(self, name: str, reason: str, use: Use) -> None:
        """Put an image on the list, unless it is there.

        Args:
            name: The image's name in its source.
            reason: Why it cannot be read.
            use: What it was to be used for.

        Raises:
            RunError: The list cannot be written.
        """
        if name in self.reasons:
            return
        self.refresh()  # another rank may have met it
        if name in self.reasons:
            return
        record = json.dumps({"name": name, "reason": reason, "used": use})
        start = "\n" if self._is_cut else ""
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                # One write, which the system appends as a whole, whoever else writes.
                os.write(file, f"{start}{record}\n".encode())
            finally:
                os.close(file)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}), so {name} is not put on it. "
                "Make room or give permission; bad_images = skip needs no list."
            ) from None
        self.reasons[name] = reason
        self._is_cut = False


class LeftOut:
    """Decides what becomes of images that cannot be read, and remembers those left out.

    Attributes:
        reasons: Name -> why; those left out by now.
    """

    def __init__(
        self, source: Source, bad_images: BadImages, use: Use, quarantine: Quarantine | None = None
    ) -> None:
        """Start with nothing left out.

        Args:
            source: Knows the names.
            bad_images: "fail" raises at the first one, "skip" leaves it out; "quarantine" does that
                too, and puts it on the run's list.
            use: What the images are used for.
            quarantine: The list; without one, "quarantine" is "skip".
        """
        self.source, self.bad_images, self.use = source, bad_images, use
        self.quarantine = quarantine if bad_images == "quarantine" else None
        self.reasons: dict[str, str] = {}

    def refresh(self) -> None:
        """Take in what other ranks put on the list."""
        if self.quarantine is not None:
            self.quarantine.refresh()

    def is_listed(self, index: int) -> bool:
        """Say whether an image is on the list, and so left out."""
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
        """Leave images out.

        Args:
            failures: Index -> why there are no pixels.

        Raises:
            DataError: An image is bad, and `bad_images` is "fail".
            MissingPackageError: A package is missing, which is not the fault of the image.
            RunError: The list cannot be written.
        """
        for why in failures.values():
            if isinstance(why, MissingPackageError):
                raise why
        for name, reason in self._named(failures):
            if self.bad_images == "fail":
                raise DataError(
                    f"{name}: {reason} Mend or replace the file, or set bad_images = skip. (If it "
                    "is removed, a run goes on with --resume_allow images.)"
                )
            self.reasons[name] = reason
            if self.quarantine is not None:
                self.quarantine.add(name, reason, self.use)

    def _named(self, failures: Mapping[int, Failure]) -> Iterator[tuple[str, str]]:
        for index, why in failures.items():
            name = self.source.names[index]
            yield name, str(why).removeprefix(f"{name}: ")
