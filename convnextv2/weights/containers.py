"""Opens weights files safely: safetensors, PyTorch's formats, MindSpore's .ckpt, and Hub folders.

No code in a file is ever executed. Opening a file takes less memory than twice its size plus a
constant (`docs/how-to/weights.md`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.files import parse_json
from convnextv2.text import brief
from convnextv2.weights.entries import Entry, choose
from convnextv2.weights.mindspore import ENCRYPTED, read_ckpt_and_notes
from convnextv2.weights.pickle_values import Entries, Foreign, Global, OddTensor, Record
from convnextv2.weights.pytorch import open_torch
from convnextv2.weights.safetensors import WEIGHTS, read_tensors
from convnextv2.weights.signatures import SIGNATURE_BYTES, signature_of

_INDEX = "model.safetensors.index.json"
_TORCH = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
_OPEN_CLIP = "open_clip_model.safetensors"
CONFIGURATIONS = ("config.json", "open_clip_config.json")
"""The files by which a folder in the layout of the Hub is recognised."""
_OTHERS = (
    "tf_model.h5",
    "flax_model.msgpack",
    "saved_model.pb",
    "pytorch_model.bin.index.json",
    "model.onnx",
)
_MAX_JSON_BYTES = 8 << 20
_LONGEST_FRONT_MATTER = 100_000
"""The number of characters of a model card that are read."""
_LONGEST_PLAUSIBLE_HEADER = 1 << 40
"""In bytes. If the header seems longer than this, the file is not a safetensors file."""
PROVENANCE = ("notice", "licence", "source_format", "source_sha256")
"""The entries in which converted files state their origin, as text beside the tensors."""


@dataclass(frozen=True)
class Container:
    """The content of a weights file or folder, under its own names.

    Attributes:
        title: The kind of file.
        tensors: The weights by name, on the CPU.
        files: The files that hold them: one, or all shards.
        metadata: The metadata of a safetensors file.
        config: The config.json of a Hub folder.
        processor: The preprocessor_config.json of a Hub folder.
        licence: The licence that the model card states.
        beside: Entries of a PyTorch checkpoint that are not the weights, and what they are.
        average: The moving average of the weights in a PyTorch checkpoint.
        provenance: Text about the origin, by the names in `PROVENANCE`.
        notes: Lines to print.
        marks: The inode, size and modification time (ns) of each file when it was opened; see
            `is_unchanged`.
    """

    title: str
    tensors: dict[str, Tensor]
    files: list[Path]
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    beside: list[tuple[str, str]] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    marks: tuple[tuple[int, int, int], ...] = ()

    @property
    def config_path(self) -> Path:
        """The path of the configuration beside the weights, whether or not there is one."""
        return self.files[0].parent / CONFIGURATIONS[0]

    def nbytes(self) -> int:
        """Return the size of all files in bytes."""
        return sum(path.stat().st_size for path in self.files)

    def __post_init__(self) -> None:
        """Record the state of the files when they are opened."""
        if not self.marks:
            object.__setattr__(self, "marks", _marks(self.files))

    def is_unchanged(self) -> bool:
        """Return whether the files are unchanged since they were opened."""
        return _marks(self.files) == self.marks

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, or of all shards one after the other, in hexadecimal."""
        digest = hashlib.sha256()
        for path in self.files:
            with open(path, "rb") as file:
                hashlib.file_digest(file, lambda: digest)
        return digest.hexdigest()


def _marks(files: list[Path]) -> tuple[tuple[int, int, int], ...]:
    """Return the inode, size and modification time (ns) of each file; zeros for a missing file."""
    marks = []
    for path in files:
        try:
            found = path.stat()
            marks.append((found.st_ino, found.st_size, found.st_mtime_ns))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)


def open_container(path: Path) -> Container:
    """Open a weights file or a Hub folder.

    Args:
        path: The file or folder. The content of a file decides how it is read, not its name.

    Returns:
        The content.

    Raises:
        CheckpointError: The file is missing, damaged, of an unknown kind, or made to run code.
    """
    if os.path.isdir(path):  # `Path.is_dir` raises OSError if the name is too long
        return _open_folder(path)
    head, size = _first_bytes(path)
    if int.from_bytes(head[:4], "little") in ENCRYPTED:
        return _open_mindspore(path)
    if _is_safetensors(head):
        return _open_safetensors(path)
    if head[:2] == b"PK":
        return _open_torch(path, is_archive=True)
    if head[:1] == b"\x80":
        return _open_torch(path, is_archive=False)
    if what := signature_of(path, head, size):
        raise CheckpointError(f"{path}: {what}")
    if head[:1] == b"\x0a":
        return _open_mindspore(path)
    raise CheckpointError(
        f"{path}: is not a weights file (expected safetensors, a PyTorch checkpoint or a MindSpore "
        ".ckpt)."
    )


def _open_folder(folder: Path) -> Container:
    """Open a folder in the layout of the Hugging Face Hub.

    It has config.json beside model.safetensors, or beside shards and their index, or beside
    pytorch_model.bin. open_clip uses file names of its own.
    """
    if (folder / WEIGHTS).is_file():
        opened = _open_safetensors(folder / WEIGHTS)
    elif (folder / _INDEX).is_file():
        opened = _open_shards(folder)
    elif (folder / _OPEN_CLIP).is_file():
        opened = _open_safetensors(folder / _OPEN_CLIP)
    elif pickled := [folder / name for name in _TORCH if (folder / name).is_file()]:
        opened = open_container(pickled[0])
    else:
        others = [name for name in _OTHERS if (folder / name).is_file()]
        beside = f"; {others[0]} is not read" if others else ""
        raise CheckpointError(
            f"{folder}: contains no weights (expected {WEIGHTS}, {_INDEX} with its shards, or "
            f"{_TORCH[0]}{beside})."
        )
    config, processor = (
        _read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("config.json", "preprocessor_config.json")
    )
    return replace(
        opened, config=config, processor=processor, licence=_card_licence(folder / "README.md")
    )


def _open_shards(folder: Path) -> Container:
    """Open the files that are listed in the index of a folder."""
    shards = _read_json(folder / _INDEX).get("weight_map")
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(name, str) for name in shards.values())
    ):
        raise CheckpointError(f"{folder / _INDEX}: has no weight_map of tensors to files.")
    files = [folder / name for name in sorted(set(shards.values()))]
    if any(file.parent != folder or not file.name.isprintable() for file in files):
        raise CheckpointError(f"{folder / _INDEX}: names a file outside its folder.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_safetensors(file)[0]
    if missing := shards.keys() - tensors.keys():
        raise CheckpointError(
            f"{folder}: {len(missing)} tensors in its index are missing from the shards, such as "
            f"{min(missing)}."
        )
    return Container("safetensors", tensors, files)


def _open_safetensors(path: Path) -> Container:
    tensors, metadata = _read_safetensors(path)
    return Container("safetensors", tensors, [path], metadata, provenance=_provenance(metadata))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file, or raise an error that says what the file is instead.

    In a clone without Git LFS, for example, it is a pointer to the file.
    """
    head, size = _first_bytes(path)
    if not _is_safetensors(head) and (what := signature_of(path, head, size)):
        raise CheckpointError(f"{path}: {what}")
    if _is_safetensors(head) and 8 + int.from_bytes(head[:8], "little") > size:
        raise CheckpointError(f"{path}: is cut short ({size:,} bytes). Copy or download it again.")
    return read_tensors(path)


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins like safetensors: the length of a header, then the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_PLAUSIBLE_HEADER


def _first_bytes(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a file, which identify its kind, and its length in bytes."""
    try:
        with open(path, "rb") as file:
            return file.read(SIGNATURE_BYTES), path.stat().st_size
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:  # a NUL in the name
        raise CheckpointError(f"{path}: cannot be read ({error}).") from None


def _open_mindspore(path: Path) -> Container:
    tensors, notes = read_ckpt_and_notes(path)
    return Container("MindSpore checkpoint", tensors, [path], provenance=_provenance(notes))


def _open_torch(path: Path, *, is_archive: bool) -> Container:
    """Open a PyTorch checkpoint, and choose the weights in it."""
    opened = open_torch(path, is_archive=is_archive)
    content = _entries_in(opened.content, path)
    chosen = choose(content)
    beside = content if chosen.weights.keys else content.attributes
    told = beside.get("provenance") if beside is not None else None
    notes = []
    if chosen.others:
        others = brief([entry.name or "its top level" for entry in chosen.others])
        place = chosen.weights.name or "its top level"
        notes.append(f"The weights are those of {place}. There are others: {others}.")
    return Container(
        opened.title,
        opened.tensors(_plain_tensors(path, chosen.weights)),
        [path],
        beside=chosen.beside
        + [(name, "Python object, neither built nor called") for name in opened.foreign],
        average=opened.tensors(_plain_tensors(path, chosen.average)) if chosen.average else {},
        provenance=_provenance(told),
        notes=notes,
    )


def _entries_in(content: Any, path: Path) -> Entries:
    """Return the content of a checkpoint, which must be a dictionary."""
    if isinstance(content, Foreign | Global) and "." in content.name:
        raise CheckpointError(
            f"{path}: holds a Python object ({content.name[:100]}), not named tensors. Building it "
            "would run code, so it is not opened. Where it was made, save model.state_dict() "
            "instead."
        )
    if not isinstance(content, Entries):
        kind = content.name if isinstance(content, Foreign) else type(content).__name__
        kind = "tensor" if isinstance(content, Record | OddTensor) else kind
        raise CheckpointError(f"{path}: holds a {kind}, not named tensors.")
    return content


def _plain_tensors(path: Path, entry: Entry) -> dict[str, Record]:
    """Return the tensors of an entry, all of which must be plain."""
    odd = [
        (name, tensor.kind)
        for name, tensor in entry.tensors.items()
        if isinstance(tensor, OddTensor)
    ]
    if odd:
        raise CheckpointError(f"{path}: {odd[0][0]} is not a plain tensor ({odd[0][1]}).")
    return {name: tensor for name, tensor in entry.tensors.items() if isinstance(tensor, Record)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("too large")
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object.")
    return content


def _card_licence(card: Path) -> str:
    """Read the licence in the front matter of a model card; empty if none is stated."""
    if not card.is_file():
        return ""
    try:
        with open(card, encoding="utf-8-sig", errors="replace") as file:
            text = file.read(_LONGEST_FRONT_MATTER)
    except OSError as error:
        raise CheckpointError(f"{card}: cannot be read ({error.strerror}).") from error
    if not text.startswith("---"):
        return ""
    lines = text.removeprefix("---").partition("\n---")[0].splitlines()
    parts = (line.partition(":") for line in lines)
    told = {name: text.strip().strip("\"'") for name, _, text in parts}
    licence = told.get("license", "")
    licence = told.get("license_name", "") if licence == "other" else licence
    return licence[:100] if licence.isprintable() else ""


def _provenance(told: object) -> dict[str, str]:
    """Return the entries about a file's origin whose text is a single printable line."""
    if not isinstance(told, Mapping):
        return {}
    found = {name: told[name] for name in PROVENANCE if isinstance(told.get(name), str)}
    return {name: text for name, text in found.items() if text.isprintable() and len(text) <= 1000}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200] + "."
