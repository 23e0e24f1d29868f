"""The description of a model in a weights file of this package, and its checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from typing_extensions import TypedDict

from convnextv2.errors import CheckpointError
from convnextv2.files import parse_json
from convnextv2.preprocessing import LONGEST_SIDE_PX, Interpolation, Preset
from convnextv2.sizes import MAX_BLOCKS, MAX_CHANNELS, MAX_CLASSES, MAX_RESIZING, MAX_WIDTH

KEY = "convnextv2"
"""The entry of a safetensors file's metadata that holds the description as JSON."""


DENSE_KINDS = ("segmentation", "detection")
"""The kinds of networks that predict for the pixels or the objects of an image."""

_NOUNS = {
    "classifier": "a classifier",
    "multi_label": "a classifier of any number of labels",
    "encoder": "an encoder",
    "fcmae": "a pre-trained encoder and decoder",
    "segmentation": "a segmentor",
    "detection": "a detector",
}


@dataclass(frozen=True)
class Description:
    """The description of the network in a weights file.

    Attributes:
        kind: "classifier" (one class for each image), "multi_label" (any number of classes for
            each image), "encoder" (pooled or plain features), "fcmae", "segmentation" (a class for
            each pixel) or "detection" (boxes and masks of objects).
        model: The name of the model, such as "convnextv2_tiny"; "custom" for other sizes.
        arguments: The arguments of `ConvNeXtV2`. For "segmentation" and "detection", `num_classes`
            is that of the head, and the encoder has no classes.
        fcmae: The arguments of `FCMAE` other than the encoder; empty for other kinds.
        head: For "segmentation" and "detection": the arguments of `Segmentor` or `Detector` other
            than the encoder and the number of classes; empty for other kinds.
        class_names: One name for each row of the head; empty if they are unknown.
        thresholds: For "multi_label": the lowest probability at which a class counts as present,
            one for each row of the head; empty if none were fitted.
        preprocessing: The preprocessing of evaluation images, as `Preprocessing.read` takes it;
            empty if unknown.
        training: The step, the epoch and the figures that were measured then.
        provenance: The origin of the weights: format, sha256, notice and licence. Weights that were
            trained from others have the entries of those under `init`, and the notice beside it. A
            model that was distilled has the entries of its teacher under `teacher`.
        balance: The frequencies of the classes in training, see `evaluation.balance`. class_counts
            has the number of training images of each row. prior has the frequencies for which
            probabilities hold: "natural" (those of the counts), "balanced" (equal), or a share for
            each row. done names the measures that were taken against imbalance. Empty if all this
            is unknown.
    """

    kind: str
    model: str
    arguments: dict[str, Any]
    fcmae: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    balance: dict[str, Any] = field(default_factory=dict)

    @property
    def total_stride(self) -> int:
        """Pixels per position of the encoder's last features: three stages halve the stem's."""
        return 8 * int(self.arguments["stem_stride"])

    @property
    def noun(self) -> str:
        """A noun for the network that messages use, such as "a segmentor"."""
        return _NOUNS.get(self.kind, f"a network of kind {self.kind}")

    def to_json(self) -> dict[str, Any]:
        """Return the content of the JSON: all attributes, without head and thresholds if empty.

        Versions that do not know these two can therefore read all weights without them.
        """
        content = asdict(self)
        for name in ("head", "thresholds"):
            if not content[name]:
                del content[name]
        return content


def _increasing(values: list[float]) -> list[float]:
    if not values[0] < values[1]:
        raise ValueError("expected two numbers, low < high")
    return values


_PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Threshold = Annotated[FiniteFloat, Field(ge=0, le=1)]
"""The lowest probability at which a class counts as present."""

_STRICT = ConfigDict(strict=True, extra="forbid")
_ANY = ConfigDict(strict=True, extra="allow")


class _Arguments(TypedDict):
    __pydantic_config__ = _ANY  # type: ignore[misc]
    depths: list[Annotated[int, Field(ge=1, le=MAX_BLOCKS)]]
    dims: list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]]
    in_channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    num_classes: Annotated[int, Field(ge=0, le=MAX_CLASSES)] | None
    stem_stride: Literal[1, 2, 4]
    gelu: Literal["exact", "tanh"]
    grn_scope: Literal["image", "batch"]
    norm_eps: _PositiveFloat
    inner_eps: NotRequired[_PositiveFloat]
    block: NotRequired[Literal["v2", "v2_without_grn", "v1"]]


class _Fcmae(TypedDict, total=False):
    __pydantic_config__ = _ANY  # type: ignore[misc]
    tile: Annotated[int, Field(ge=1, le=LONGEST_SIDE_PX)]
    norm_target: bool
    decoder_dim: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    decoder_depth: Annotated[int, Field(ge=1, le=MAX_BLOCKS)]


class _Preprocessing(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    image_size: Annotated[
        list[Annotated[int, Field(gt=0, le=LONGEST_SIDE_PX)]], Field(min_length=2, max_length=2)
    ]
    channels: PositiveInt
    eval_preset: Preset
    interpolation: Interpolation
    crop_pct: Annotated[FiniteFloat, Field(ge=1 / MAX_RESIZING, le=1)]
    mean: Annotated[list[FiniteFloat], Field(min_length=1)]
    std: Annotated[list[_PositiveFloat], Field(min_length=1)]
    antialias: bool | None
    value_range: (
        Annotated[list[FiniteFloat], Field(min_length=2, max_length=2), AfterValidator(_increasing)]
        | None
    )


class _Provenance(TypedDict, total=False):
    __pydantic_config__ = _ANY  # type: ignore[misc]
    format: str
    sha256: str
    notice: str
    licence: str
    init: dict[str, Any]
    teacher: dict[str, Any]


class _Balance(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    class_counts: list[Annotated[int, Field(ge=0)]]
    prior: Literal["natural", "balanced"] | list[Annotated[FiniteFloat, Field(ge=0)]]
    done: str


class _Content(TypedDict):
    """The valid content of a `Description` in JSON. A file from elsewhere may hold anything."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    model: str
    arguments: _Arguments
    fcmae: _Fcmae
    head: dict[str, Any]
    class_names: list[str]
    thresholds: list[Threshold]
    preprocessing: _Preprocessing
    training: dict[str, Any]
    provenance: _Provenance
    balance: _Balance


_NEEDED = ("image_size", "channels", "eval_preset", "interpolation", "crop_pct", "mean", "std")
"""The values that a description of preprocessing must have. None of them is guessed."""

_CONTENT, _PREPROCESSING = TypeAdapter(_Content), TypeAdapter(_Preprocessing)
_ARGUMENTS = TypeAdapter(_Arguments)
_BALANCE = TypeAdapter(_Balance)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Return whether the metadata of a safetensors file say that this package wrote it."""
    return KEY in metadata


def read_description(metadata: Mapping[str, str], path: Path) -> Description:
    """Read the description in a weights file of this package.

    Args:
        metadata: The metadata of the safetensors file.
        path: The file, for error messages.

    Returns:
        The description, with every value checked for its type and its range.

    Raises:
        CheckpointError: The description cannot be parsed, has wrong types, or contradicts itself.
    """
    defaults: dict[str, Any] = {
        "fcmae": {},
        "head": {},
        "class_names": [],
        "thresholds": [],
        "preprocessing": {},
        "training": {},
        "provenance": {},
        "balance": {},
    }
    try:
        content = parse_json(metadata[KEY])
        _CONTENT.validate_json(json.dumps(defaults | content))
        description = Description(**content)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its model description cannot be read ({_complaint(error)})."
        ) from error
    _check_agreement(description, path)
    return description


def _check_agreement(description: Description, path: Path) -> None:
    """Raise CheckpointError if the parts of a description do not fit each other."""
    rows = description.arguments.get("num_classes") or 0
    if description.class_names and len(description.class_names) != rows:
        raise CheckpointError(
            f"{path}: its model description has {len(description.class_names)} class names for "
            f"{rows} classes."
        )
    if description.thresholds and (
        description.kind != "multi_label" or len(description.thresholds) != rows
    ):
        raise CheckpointError(
            f"{path}: its model description has {len(description.thresholds)} thresholds for a "
            f"{description.kind} of {rows} classes."
        )
    check_balance(description.balance, rows, path)
    if not description.preprocessing:
        return
    if missing := [name for name in _NEEDED if name not in description.preprocessing]:
        raise CheckpointError(
            f"{path}: its model description has preprocessing without {', '.join(missing)}."
        )
    taken, prepared = description.arguments["in_channels"], description.preprocessing["channels"]
    if taken != prepared:
        raise CheckpointError(
            f"{path}: its model description has a network for {taken} channels, but preprocessing "
            f"for {prepared}."
        )
    _check_counts(description.preprocessing, path)


def read_model_json(path: Path) -> Description:
    """Read the `model.json` that lies beside a weights file of this package.

    Args:
        path: The JSON file.

    Returns:
        The description, checked as in `read_description`.

    Raises:
        CheckpointError: The file cannot be read, or its content is not a valid description.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    return read_description({KEY: text}, path)


def check_arguments(arguments: Mapping[str, Any], path: Path) -> None:
    """Check values that are meant to describe the size of a network.

    Args:
        arguments: The values, as in `Description.arguments`.
        path: The file that they come from, for error messages.

    Raises:
        CheckpointError: A value is missing, has the wrong type, or is larger than that of any
            network.
    """
    try:
        _ARGUMENTS.validate_json(json.dumps(arguments))
        for name in ("depths", "dims"):
            if len(arguments[name]) != 4:
                raise ValueError(f"{name} has {len(arguments[name])} numbers, expected 4")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its description of the network cannot be used ({_complaint(error)})."
        ) from error


def check_preprocessing(preprocessing: Mapping[str, Any], path: Path) -> None:
    """Check values that describe the preprocessing of evaluation images.

    Args:
        preprocessing: The values, as in `Description.preprocessing`.
        path: The file or folder that they come from, for error messages.

    Raises:
        CheckpointError: A value has the wrong type, is out of range or is unknown.
    """
    try:
        _PREPROCESSING.validate_json(json.dumps(preprocessing))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the preprocessing beside the weights cannot be used ({_complaint(error)})."
        ) from error
    if missing := [name for name in _NEEDED if name not in preprocessing]:
        raise CheckpointError(f"{path}: its preprocessing has no {', '.join(missing)}.")
    _check_counts(preprocessing, path)


def check_balance(balance: Mapping[str, Any], rows: int, path: Path) -> None:
    """Check the stated frequencies of the classes in training.

    Args:
        balance: The values, as in `Description.balance`.
        rows: The number of classes.
        path: The file that they come from, for error messages.

    Raises:
        CheckpointError: A value is missing, has the wrong type or is out of range.
    """
    try:
        _BALANCE.validate_json(json.dumps(balance))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its balance of the classes cannot be read ({_complaint(error)})."
        ) from error
    if balance and (missing := {"class_counts", "prior", "done"} - balance.keys()):
        raise CheckpointError(f"{path}: its balance of the classes has no {min(missing)}.")
    for name in ("class_counts", "prior"):
        each = balance.get(name, "")
        if not isinstance(each, str) and (len(each) != rows or not sum(each)):
            raise CheckpointError(
                f"{path}: its balance of the classes has a {name} of {len(each)} numbers with sum "
                f"{sum(each):g}, for {rows} classes."
            )


def _check_counts(preprocessing: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError unless mean and std have one number for each channel."""
    for name in ("mean", "std"):
        channels, values = preprocessing.get("channels"), preprocessing.get(name)
        if channels is not None and values is not None and len(values) != channels:
            raise CheckpointError(
                f"{path}: its {name} has {len(values)} numbers for {channels} channels."
            )


def _complaint(error: Exception) -> str:
    """Return one line about the first mistake."""
    if not isinstance(error, ValidationError):
        return ascii(str(error))[1:-1][:200]
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"][0].lower() + first["msg"][1:200]
    return f"{ascii(where)[1:-1][:100]} = {ascii(first['input'])[:60]}: {message}"
