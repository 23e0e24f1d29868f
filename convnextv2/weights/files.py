"""Our weights file: safetensors whose metadata describe the model, with the same description as readable JSON beside it.

One file is enough to build the model again, and it is replaced in one atomic step. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from convnextv2.errors import CheckpointError
from convnextv2.preprocessing import Interpolation, Preset

WEIGHTS = "model.safetensors"
_KEY = "convnextv2"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_HEAD = 4 << 20
_MOST_TENSORS = 50_000
_MOST_BRACKETS = 100_000


@dataclass(frozen=True)
class Description:
    """What a weights file holds.

    kind: "classifier", "encoder" (pooled or plain features) or "fcmae". model: its name. arguments: of `ConvNeXtV2`. fcmae:
    arguments of `FCMAE` beside the encoder. class_names: one per row of the head. preprocessing: how evaluation images are
    prepared (`data.transforms`). training: step, epoch and the figures measured then. provenance: where the weights came from:
    format, sha256, notice and licence; or, of what was trained from others, `init` with these, and the notice."""

    kind: str
    model: str
    arguments: dict[str, Any]
    fcmae: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def _increasing(values: list[float]) -> list[float]:
    if not values[0] < values[1]:
        raise ValueError("expected two numbers, low < high")
    return values


_PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
_STRICT = ConfigDict(strict=True, extra="forbid")
_ANY = ConfigDict(strict=True, extra="allow")


class _Arguments(TypedDict):
    __pydantic_config__ = _ANY  # type: ignore[misc]
    depths: list[PositiveInt]
    dims: list[PositiveInt]
    in_channels: PositiveInt
    num_classes: Annotated[int, Field(ge=0)] | None
    stem_stride: PositiveInt
    gelu: Literal["exact", "tanh"]
    grn_scope: Literal["image", "batch"]
    norm_eps: _PositiveFloat


class _Fcmae(TypedDict, total=False):
    __pydantic_config__ = _ANY  # type: ignore[misc]
    tile: PositiveInt
    norm_target: bool
    decoder_dim: PositiveInt
    decoder_depth: PositiveInt


class _Preprocessing(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    image_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    channels: PositiveInt
    eval_preset: Preset
    interpolation: Interpolation
    crop_pct: Annotated[FiniteFloat, Field(gt=0, le=1)]
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


class _Content(TypedDict):
    """What the JSON of a `Description` may be; a file of anyone's may hold anything."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    model: str
    arguments: _Arguments
    fcmae: _Fcmae
    class_names: list[str]
    preprocessing: _Preprocessing
    training: dict[str, Any]
    provenance: _Provenance


_CONTENT, _PREPROCESSING = TypeAdapter(_Content), TypeAdapter(_Preprocessing)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file in one atomic step: give a temporary path, and put it in place when all went well.

    The file is on disk before its name points to it, so that a crash leaves the old or the new one.
    Its permissions are those that the umask asks for, whoever writes the temporary file: the library
    of safetensors gives its files to their owner alone.

    Args:
        path: The file's name at last.

    Yields:
        The path to write to.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(permissions)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)  # half a file on a full disk would keep it full
        raise
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that they outlive a loss of power.

    A system that cannot open folders, or cannot do this for them, does it in its own time.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one atomic step.

    Raises:
        OSError: The system cannot write it.
    """
    with replacing(path) as temporary:
        try:
            save_file(
                {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
                temporary,
                metadata={"format": "pt", **(metadata or {})},
            )
        except SafetensorError as error:  # the library wraps what the system says
            number = re.search(r"(?:os error|code:) (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on CPU, and its metadata. Raises CheckpointError where it is none, or is damaged, or
    has more tensors or a longer head than any network."""
    try:
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
        if _LONGEST_HEAD < length < path.stat().st_size:
            raise ValueError(f"a head of {length:,} bytes, expected at most {_LONGEST_HEAD:,}")
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > _MOST_TENSORS:
                raise ValueError(f"{len(names)} tensors, expected at most {_MOST_TENSORS}")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or damaged ({' '.join(str(error).split())})."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in one atomic step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one atomic step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def parse_json(text: str) -> Any:
    """Read JSON in which a half of a surrogate pair becomes its escape, as text that can be written again.

    Args:
        text: JSON. Python writes such halves for names of files that are not UTF-8.

    Returns:
        What it holds.

    Raises:
        ValueError: Where it is no JSON, or of so many lists and objects that it would fill the
            memory.
    """
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise ValueError(f"more than {_MOST_BRACKETS:,} lists and objects")
    content = json.loads(text)
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return content
    return json.loads(
        _SURROGATE.sub(
            lambda half: f"\\\\u{ord(half[0]):04x}", json.dumps(content, ensure_ascii=False)
        )
    )


def save_weights(folder: Path, tensors: Mapping[str, Tensor], description: Description) -> None:
    """Write `model.safetensors` and `model.json` into a folder, which is made where needed."""
    content = asdict(description)
    told = json.dumps(content, ensure_ascii=False)
    if half := _SURROGATE.search(told):
        around = told[max(half.start() - 40, 0) : half.end() + 40]
        raise CheckpointError(
            f"{folder}: cannot be written, since a name in the model's description is not UTF-8 (...{around}...). Rename that "
            "class (its folder) and try again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors, {_KEY: json.dumps(content)})
    write_json(folder / "model.json", content)


def is_ours(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata of a safetensors file say that we wrote it."""
    return _KEY in metadata


def read_description(metadata: Mapping[str, str], path: Path) -> Description:
    """The description in one of our weights files. Raises CheckpointError where it cannot be read, or is not of the right
    types."""
    defaults: dict[str, Any] = {
        "fcmae": {},
        "class_names": [],
        "preprocessing": {},
        "training": {},
        "provenance": {},
    }
    try:
        content = parse_json(metadata[_KEY])
        _CONTENT.validate_json(json.dumps(defaults | content))
        description = Description(**content)
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its model description cannot be read ({_complaint(error)})."
        ) from error
    rows = description.arguments.get("num_classes") or 0
    if description.class_names and len(description.class_names) != rows:
        raise CheckpointError(
            f"{path}: its model description has {len(description.class_names)} class names for {rows} classes."
        )
    needed = ("image_size", "channels", "eval_preset", "interpolation", "crop_pct", "mean", "std")
    if description.preprocessing and (
        missing := [name for name in needed if name not in description.preprocessing]
    ):
        raise CheckpointError(
            f"{path}: its model description has preprocessing without {', '.join(missing)}."
        )
    if description.preprocessing:
        taken, prepared = (
            description.arguments["in_channels"],
            description.preprocessing["channels"],
        )
        if taken != prepared:
            raise CheckpointError(
                f"{path}: its model description has a network of {taken} channels for images of {prepared}."
            )
        _check_counts(description.preprocessing, path)
    return description


def read_model_json(path: Path) -> Description:
    """Read the description that stands beside a weights file of ours.

    Raises:
        CheckpointError: The file cannot be read, or is not of the right form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    return read_description({_KEY: text}, path)


def check_preprocessing(preprocessing: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError where these cannot be arguments of the evaluation transform."""
    try:
        _PREPROCESSING.validate_json(json.dumps(preprocessing))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the preprocessing beside the weights cannot be used ({_complaint(error)})."
        ) from error
    _check_counts(preprocessing, path)


def _check_counts(preprocessing: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError where mean or std do not have one number for each channel."""
    for name in ("mean", "std"):
        channels, values = preprocessing.get("channels"), preprocessing.get(name)
        if channels is not None and values is not None and len(values) != channels:
            raise CheckpointError(
                f"{path}: its {name} has {len(values)} numbers for {channels} channels."
            )


def _complaint(error: Exception) -> str:
    """The first thing that is wrong, on one line."""
    if not isinstance(error, ValidationError):
        return ascii(str(error))[1:-1][:200]
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{ascii(where)[1:-1][:100]} = {ascii(first['input'])[:60]}: {first['msg'][0].lower()}{first['msg'][1:200]}"
