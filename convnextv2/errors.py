"""Errors that a user can cause and fix.

ConvNeXtV2Error (a ValueError)
├── RecipeError       a knob is unknown, has a wrong value, or two knobs contradict each other
├── DataError         a folder, table or image cannot be used
│   ├── ImageSizeError    an image has more pixels than may be decoded
│   ├── ChannelsError     an image does not have the channels that the network takes
│   └── StorageError      images cannot be reached, though nothing is wrong with them
├── CheckpointError   weights cannot be read, or do not fit the model
│   └── DamagedCheckpointError   a file of a run's checkpoint is missing or has changed
├── ArtifactError     an exported model cannot be read, or is worse than the model it came from
├── RunError          a run folder exists already, or a folder is not a run folder
├── DeviceError       a device or the other ranks cannot be reached
│   └── LostRankError     another rank of the job has ended or does not answer
├── ServerError       a server refuses a request or cannot be reached
├── TrainingError     training cannot continue (a loss that is not finite)
└── MissingPackageError   an optional package is not installed

Ended and Stopped (each a KeyboardInterrupt) are not errors. Ended: a signal ended a command, which
has cleaned up. Stopped: a run was asked to stop, and its work is saved.

Each message is one line: what is wrong, its value, what was expected, and the remedy. A RecipeError
has one such line for each mistake. The command line prints the message and exits with 2, or with 75
if the same command can be continued. Programming errors are asserts and built-in exceptions, which
keep their traceback.
"""

from __future__ import annotations

import re
import signal
from importlib.metadata import PackageNotFoundError, requires

from convnextv2.text import plain

GO_ON_LATER = 75
"""The exit code that says that nothing is wrong with the command and that it may be started again
(EX_TEMPFAIL in sysexits.h)."""


class Stopped(KeyboardInterrupt):
    """A run stopped because of SIGINT, SIGTERM or SIGHUP. The message says what was saved."""


class Ended(KeyboardInterrupt):
    """A signal ended a command.

    Args:
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(
            "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        )

    def __reduce__(self) -> tuple[type[Ended], tuple[int]]:
        """Let a worker process pickle it, although its message is not its argument."""
        return Ended, (self.number,)

    @property
    def exit_code(self) -> int:
        """The exit code of a process that the signal has ended, as shells give it."""
        return 128 + self.number


class ConvNeXtV2Error(ValueError):
    """The base of every error that a user can cause.

    A program that uses the package catches this one, and shows the message as it is::

        try:
            convnextv2.train(data_dir="shoes", out="runs/shoes")
        except convnextv2.ConvNeXtV2Error as error:
            print(error)
    """

    exit_code = 2


class RecipeError(ConvNeXtV2Error):
    """One or more knobs cannot be used. The message lists all of them."""


class DataError(ConvNeXtV2Error):
    """A folder, table or image cannot be used."""


class ImageSizeError(DataError):
    """An image has more pixels than may be decoded."""


class ChannelsError(DataError):
    """An image does not have the channels that the network takes.

    Args:
        message: The message.
        bands: The number of channels that the image has.
    """

    def __init__(self, message: str, bands: int) -> None:
        super().__init__(message)
        self.bands = bands

    def __reduce__(self) -> tuple[type[ChannelsError], tuple[str, int]]:
        """Let a worker process send the error to the process that started it."""
        return type(self), (str(self), self.bands)


class StorageError(DataError):
    """Images cannot be reached: a file server is down, or the machine has no room for them.

    Nothing is wrong with the images themselves, so none is left out because of this error.
    """


class CheckpointError(ConvNeXtV2Error):
    """Weights cannot be read, or do not fit the model.

    The names in a file may hold any character, so the message is made one printable line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class DamagedCheckpointError(CheckpointError):
    """A file of a run's checkpoint is missing, cannot be read, or has changed since."""


class ArtifactError(ConvNeXtV2Error):
    """An exported model cannot be read, or is worse than the model that it was made from."""


class RunError(ConvNeXtV2Error):
    """A run folder exists already, or a folder is not a run folder."""


class DeviceError(ConvNeXtV2Error):
    """A device or the other ranks cannot be reached."""


class LostRankError(DeviceError):
    """Another rank of the job has ended or does not answer. The job may be started again."""

    exit_code = GO_ON_LATER


class ServerError(ConvNeXtV2Error):
    """A server refuses a request or cannot be reached."""


class TrainingError(ConvNeXtV2Error):
    """Training cannot continue, for example because the loss is not finite."""


class MissingPackageError(ConvNeXtV2Error):
    """An optional package is not installed. The message says how to install it.

    This project is on no package registry, so the message never tells pip to look for it there.

    Args:
        package: The name of the package, as pip knows it.
        extra: The extra of this project that includes it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._arguments = package, extra
        super().__init__(
            f"{package} is not installed. Install it with: pip install {_requirement(package)} "
            f"(or the whole extra, in the project's checkout: pip install '.[{extra}]')"
        )

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        """Let a worker process send the error to the process that started it."""
        return type(self), self._arguments


def _requirement(package: str) -> str:
    """Return a package with the versions that this project can use, in quotes for the shell.

    If the project runs from its sources without being installed, return only the name.
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
