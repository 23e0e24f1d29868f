"""Errors that a user can cause, and mend.

ConvNeXtV2Error (a ValueError)
├── RecipeError       a knob is unknown, has a wrong value, or two knobs contradict each other
├── DataError         a folder, manifest or image cannot be used
│   └── ImageSizeError    an image has more pixels than are decoded
├── CheckpointError   weights cannot be read, or do not fit the model
├── ArtifactError     an exported model cannot be read, or is not as good as the model it was made from
├── RunError          a run folder exists already, or is not one
├── DeviceError       a device or the other ranks cannot be reached
├── ServerError       a server refuses, or cannot be reached
├── TrainingError     training cannot go on (a loss that is not finite)
└── MissingPackageError   an optional package is not installed

Each message is one line (RecipeError: one line for each mistake): what, its value, what was expected, and the remedy. The command
line prints it and exits with 2. Programming errors are asserts and built-in exceptions, and keep their traceback.
"""

from convnextv2.text import plain


class ConvNeXtV2Error(ValueError):
    """Base of every error that a user can cause."""


class RecipeError(ConvNeXtV2Error):
    """One or more knobs cannot be used; the message lists all of them."""


class DataError(ConvNeXtV2Error):
    """A folder, manifest or image cannot be used."""


class ImageSizeError(DataError):
    """An image has more pixels than are decoded."""


class CheckpointError(ConvNeXtV2Error):
    """Weights cannot be read, or do not fit the model. Files may call their parts anything; the message stays one plain line."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class ArtifactError(ConvNeXtV2Error):
    """An exported model cannot be read, or is not as good as the model that it was made from."""


class RunError(ConvNeXtV2Error):
    """A run folder exists already, or is not one."""


class DeviceError(ConvNeXtV2Error):
    """A device or the other ranks cannot be reached."""


class ServerError(ConvNeXtV2Error):
    """A server refuses, or cannot be reached."""


class TrainingError(ConvNeXtV2Error):
    """Training cannot go on."""


class MissingPackageError(ConvNeXtV2Error):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'convnextv2[{extra}]'")
