"""Errors that a user can cause, and mend.

ConvNeXtV2Error (a ValueError)
├── RecipeError       a knob is unknown, has a wrong value, or two knobs contradict each other
├── DataError         a folder, table or image cannot be used
│   ├── ImageSizeError    an image has more pixels than are decoded
│   ├── ChannelsError     an image has other channels than the network takes
│   └── StorageError      images are out of reach, which is no fault of theirs
├── CheckpointError   weights cannot be read, or do not fit the model
│   └── DamagedCheckpointError   a file of a run's checkpoint is not what was written
├── ArtifactError     an exported model cannot be read, or is not as good as the model it was made from
├── RunError          a run folder exists already, or is not one
├── DeviceError       a device or the other ranks cannot be reached
│   └── LostRankError     another rank of the job ended, or does not answer
├── ServerError       a server refuses, or cannot be reached
├── TrainingError     training cannot go on (a loss that is not finite)
└── MissingPackageError   an optional package is not installed

Stopped (a KeyboardInterrupt) is no error: a run was asked to stop, and what it did is saved.

Each message is one line (RecipeError: one line for each mistake): what, its value, what was expected, and the remedy. The command
line prints it and exits with 2, or with 75 where the same command may go on later. Programming errors are asserts and built-in
exceptions, and keep their traceback.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

from convnextv2.text import plain

GO_ON_LATER = 75
"""The exit code that says: nothing is wrong with the command, start it again (EX_TEMPFAIL of sysexits.h)."""


class Stopped(KeyboardInterrupt):
    """A run was stopped as asked, by SIGINT or SIGTERM; the message says what it saved."""


class ConvNeXtV2Error(ValueError):
    """Base of every error that a user can cause."""

    exit_code = 2


class RecipeError(ConvNeXtV2Error):
    """One or more knobs cannot be used; the message lists all of them."""


class DataError(ConvNeXtV2Error):
    """A folder, table or image cannot be used."""


class ImageSizeError(DataError):
    """An image has more pixels than are decoded."""


class ChannelsError(DataError):
    """An image has other channels than the network takes. bands: how many it has."""

    def __init__(self, message: str, bands: int) -> None:
        super().__init__(message)
        self.bands = bands


class StorageError(DataError):
    """Images are out of reach: a file server is away, or the machine has no room for them.

    That is no fault of an image, so none is left out because of it.
    """


class CheckpointError(ConvNeXtV2Error):
    """Weights cannot be read, or do not fit the model. Files may call their parts anything; the message stays one plain line."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class DamagedCheckpointError(CheckpointError):
    """A file of a run's checkpoint is missing, cannot be read, or is not what was written."""


class ArtifactError(ConvNeXtV2Error):
    """An exported model cannot be read, or is not as good as the model that it was made from."""


class RunError(ConvNeXtV2Error):
    """A run folder exists already, or is not one."""


class DeviceError(ConvNeXtV2Error):
    """A device or the other ranks cannot be reached."""


class LostRankError(DeviceError):
    """Another rank of the job ended, or does not answer; the job may be started again."""

    exit_code = GO_ON_LATER


class ServerError(ConvNeXtV2Error):
    """A server refuses, or cannot be reached."""


class TrainingError(ConvNeXtV2Error):
    """Training cannot go on."""


class MissingPackageError(ConvNeXtV2Error):
    """An optional package is not installed; the message says how to install it.

    This project is on no package registry, so that the message never names it as something that
    pip would find there.

    Args:
        package: as pip calls it.
        extra: the extra of this project that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._arguments = package, extra
        super().__init__(
            f"{package} is not installed. Install it with: pip install {_requirement(package)} "
            f"(or all of its kind, in the project's checkout: pip install '.[{extra}]')"
        )

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        """For worker processes, which send it to the one that started them."""
        return type(self), self._arguments


def _requirement(package: str) -> str:
    """The versions of a package that this project can use, in quotes for the shell.

    Only the name where the project runs from its sources without being installed.
    """
    try:
        stated = requires("convnextv2") or []
    except PackageNotFoundError:
        stated = []
    for requirement in stated:
        name, versions = re.match(r"([\w.-]+)([^;]*)", requirement).groups()  # type: ignore[union-attr]
        if name.lower().replace("_", "-") == package.lower().replace("_", "-") and versions.strip():
            return f"'{name}{versions.strip()}'"
    return package
