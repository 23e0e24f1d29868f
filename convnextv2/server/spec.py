"""Parse the models to serve: their names, their versions and their sources."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convnextv2.deploy.artifact import CARD, is_artifact
from convnextv2.errors import RunError
from convnextv2.find import find_weights
from convnextv2.weights.hub import is_hub_name

_LABELLED = re.compile(r"[\w.-]+(@[\w.-]+)?=")


@dataclass(frozen=True)
class Spec:
    """A model that is to be served.

    Attributes:
        name: The model's name.
        version: The version; empty if the user named none. It then increases with each change.
        source: A path, or OWNER/NAME on the Hub.
    """

    name: str
    version: str
    source: Path


def parse_specs(texts: Sequence[str]) -> list[Spec]:
    """Parse the models that a user wants to serve.

    Args:
        texts: Each is `[NAME[@VERSION]=]SOURCE`. The default name is the last part of the source.
            The folder of a model repository stands for all of its numbered versions.

    Returns:
        The models, in the same order.

    Raises:
        RunError: A source does not exist or cannot be listed, or a version is given twice.
    """
    specs: list[Spec] = []
    for text in texts:
        label, given, path = text.partition("=") if _LABELLED.match(text) else ("", "", text)
        source = Path(path)
        name, _, version = label.partition("@")
        if not given:
            name = re.sub(r"[^\w.-]+", "-", source.resolve().name) or "model"
        if not is_hub_name(path):
            if not _exists(source):
                raise RunError(
                    f"{source}: no such file or folder. Expected a run, weights or an artifact, as "
                    "[NAME[@VERSION]=]PATH, or OWNER/NAME of the Hub."
                )
            if numbered := [] if version else _versions(source):
                specs += [Spec(name, entry.name, entry) for entry in numbered]
                continue
        specs.append(Spec(name, version, source))
    many = Counter((spec.name, spec.version or "1") for spec in specs)
    for (name, version), times in many.items():
        if times > 1:
            raise RunError(
                f"{name}@{version}: named twice. Give each model another name or version."
            )
    return specs


def is_number(version: str) -> bool:
    """Return whether a version is a number. `str.isdigit` accepts "²" too, which `int` does not."""
    return re.fullmatch(r"[0-9]{1,18}", version) is not None


def version_order(version: str) -> tuple[bool, int]:
    """Return a sort key for versions.

    The newest version has the highest number. Versions that are not numbers are older and keep
    their order.
    """
    return is_number(version), int(version) if is_number(version) else 0


def fingerprint(source: Path) -> tuple[tuple[int, ...], ...]:
    """Return a value that changes when the files at a source change.

    Args:
        source: An artifact, a run, weights, or OWNER/NAME of the Hub, which is fetched again.

    Returns:
        The time of change, the size and the inode of each file that belongs to the model.
    """
    if is_artifact(source):
        folder = source if source.is_dir() else source.parent
        assert (folder / CARD).is_file()
        files = sorted(file for file in folder.iterdir() if file.is_file())
    else:
        files = [find_weights(source)]
    found = [os.stat(file) for file in files]
    return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found)


def _exists(source: Path) -> bool:
    """Return whether a path exists. Raises RunError if that cannot be determined."""
    try:
        return source.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise RunError(f"{source}: cannot be accessed ({error.strerror}).") from None


def _versions(source: Path) -> list[Path]:
    """Return the numbered folders of a model repository, in order; none for any other source."""
    try:
        if not source.is_dir():
            return []
        return sorted(
            (entry for entry in source.iterdir() if is_number(entry.name)),
            key=lambda entry: int(entry.name),
        )
    except OSError as error:
        raise RunError(f"{source}: cannot be listed ({error.strerror}).") from None
