"""Open a file of anyone's weights safely: safetensors, PyTorch's formats, MindSpore's .ckpt, folders of the Hugging Face Hub.

No code in a file is ever executed, and nothing larger than the file itself is allocated from what it claims to hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.errors import CheckpointError
from convnextv2.weights.files import WEIGHTS, read_tensors
from convnextv2.weights.mindspore import ENCRYPTED, read_ckpt_and_notes

_MOST_ENTRIES = 100_000
_INDEX = "model.safetensors.index.json"
_TORCH = "pytorch_model.bin"
_MOST_JSON_BYTES = 64 << 20
_WEIGHTS_IN = ("model", "state_dict", "model_state_dict", "module")
_AVERAGE_IN = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
PROVENANCE = ("notice", "licence", "source_format", "source_sha256")
"""What our converted files say about where they come from, as text beside the tensors."""


@dataclass(frozen=True)
class Container:
    """What a file or folder holds, as it stands there.

    title: the kind of file. metadata: of safetensors. config: config.json of a Hub folder. processor: its
    preprocessor_config.json. licence: what its model card names. beside: entries of a PyTorch checkpoint that are not the
    weights. average: its moving average of the weights. provenance: text by the names in `PROVENANCE`."""

    title: str
    tensors: dict[str, Tensor]
    files: list[Path]
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    beside: list[str] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)

    def sha256(self) -> str:
        """Of the weights file, or of all shards one after the other, as hexadecimal digits."""
        digest = hashlib.sha256()
        for path in self.files:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def open_container(path: Path) -> Container:
    """Open a weights file or a Hub folder. Raises CheckpointError where it is damaged, of no known kind, or holds code."""
    if path.is_dir():
        return _open_folder(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            size = path.stat().st_size
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file.") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None
    if int.from_bytes(head[:4], "little") in ENCRYPTED:
        return _open_mindspore(path)
    if head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size:
        tensors, metadata = read_tensors(path)
        return Container("safetensors", tensors, [path], metadata, provenance=_provenance(metadata))
    if head[:2] == b"PK":
        return _open_torch(path, "PyTorch checkpoint")
    if head[:1] == b"\x80":
        return _open_torch(path, "PyTorch checkpoint (before 1.6)")
    if head[:1] == b"\x0a":
        return _open_mindspore(path)
    raise CheckpointError(f"{path}: no weights file (expected safetensors, a PyTorch checkpoint or a MindSpore .ckpt).")


def _open_folder(folder: Path) -> Container:
    """The layout of the Hugging Face Hub: config.json beside model.safetensors, or beside shards and their index, or beside
    pytorch_model.bin."""
    if (folder / WEIGHTS).is_file():
        tensors, metadata = read_tensors(folder / WEIGHTS)
        files = [folder / WEIGHTS]
    elif (folder / _INDEX).is_file():
        shards = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise CheckpointError(f"{folder / _INDEX}: has no weight_map of tensors to files.")
        files = [folder / name for name in sorted(set(shards.values()))]
        if any(file.parent != folder or not file.name.isprintable() for file in files):
            raise CheckpointError(f"{folder / _INDEX}: names a file outside of its folder.")
        tensors, metadata = {}, {}
        for file in files:
            tensors |= read_tensors(file)[0]
        if missing := shards.keys() - tensors.keys():
            raise CheckpointError(f"{folder}: {len(missing)} tensors of its index are in no shard, such as {min(missing)}.")
    elif (folder / _TORCH).is_file():
        opened = open_container(folder / _TORCH)
        tensors, metadata, files = opened.tensors, {**opened.metadata, **opened.provenance}, opened.files
    else:
        raise CheckpointError(f"{folder}: no weights in it (expected {WEIGHTS}, {_INDEX} with its shards, or {_TORCH}).")
    config, processor = (
        _read_json(folder / name) if (folder / name).is_file() else {} for name in ("config.json", "preprocessor_config.json")
    )
    title = "PyTorch checkpoint" if files[0].name == _TORCH else "safetensors"
    licence = _card_licence(folder / "README.md")
    return Container(title, tensors, files, metadata, config, processor, licence, provenance=_provenance(metadata))


def _open_mindspore(path: Path) -> Container:
    tensors, notes = read_ckpt_and_notes(path)
    return Container("MindSpore checkpoint", tensors, [path], provenance=_provenance(notes))


def _open_torch(path: Path, title: str) -> Container:
    if title == "PyTorch checkpoint":
        _check_zip(path)
    try:
        # What official training checkpoints carry beside tensors; a plain record of arguments.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"Python objects ({found[1][:100]}), not only tensors" if found else "more than tensors"
        raise CheckpointError(
            f"{path}: holds {what}, and reading those can run code, so it is not opened. Where it was made, save "
            "model.state_dict() instead."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything; none of it is ours
        raise CheckpointError(f"{path}: damaged, or no PyTorch checkpoint ({_first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not named tensors.")
    weights_in = next((key for key in _WEIGHTS_IN if isinstance(content.get(key), Mapping)), None)
    average_in = next((key for key in _AVERAGE_IN if isinstance(content.get(key), Mapping)), None)
    if weights_in is None:  # an average alone is what there is to use
        weights_in, average_in = average_in, None
    tensors = _only_tensors(path, content[weights_in] if weights_in else content)
    average = _only_tensors(path, content[average_in]) if average_in else {}
    _check_extent(path, [*tensors.values(), *average.values()])
    known = [key for key in (weights_in, average_in, "provenance") if key]
    beside = [key for key in content if isinstance(key, str) and key not in (*known, *tensors)]
    told = content.get("provenance") if weights_in else getattr(content, "provenance", None)
    return Container(title, tensors, [path], beside=beside, average=average, provenance=_provenance(told))


def _only_tensors(path: Path, weights: Mapping[Any, Any]) -> dict[str, Tensor]:
    tensors = {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    if not all(isinstance(name, str) for name in tensors):
        raise CheckpointError(f"{path}: a tensor in it has a name that is no text.")
    odd = [name for name, tensor in tensors.items() if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta]
    if odd:
        raise CheckpointError(f"{path}: {odd[0]} is no plain tensor (sparse, quantised or empty).")
    return tensors


def _check_zip(path: Path) -> None:
    """Refuse archives that PyTorch did not write: compressed (bombs), overlapping, or damaged entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise CheckpointError(f"{path}: {len(entries)} entries in the archive, expected at most {_MOST_ENTRIES}.")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise CheckpointError(f"{path}: compressed entries in it; PyTorch stores them as they are. Not opened.")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError(f"{path}: its entries claim more bytes than the file has. Not opened.")
            if damaged := archive.testzip():
                raise CheckpointError(f"{path}: {damaged} in it is damaged. Copy or download it again.")
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: damaged archive ({_first_line(error)})") from error


def _check_extent(path: Path, tensors: Sequence[Tensor]) -> None:
    """Strides of zero make a huge tensor of a small file; whoever copies it runs out of memory."""
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if claimed > 4 * path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors claim {claimed:,} bytes, the file has {path.stat().st_size:,}. Not opened.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object.")
    return content


def _card_licence(card: Path) -> str:
    """The licence in the front matter of a model card, or nothing."""
    if not card.is_file():
        return ""
    front = card.read_text(encoding="utf-8", errors="replace")[:10_000].split("---")
    lines = front[1].splitlines() if len(front) > 2 else []
    licence = next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "")
    return "" if licence == "other" or not licence.isprintable() else licence[:100]


def _provenance(told: object) -> dict[str, str]:
    """What a file says of its origin, on one line each."""
    if not isinstance(told, Mapping):
        return {}
    found = {name: told[name] for name in PROVENANCE if isinstance(told.get(name), str)}
    return {name: text for name, text in found.items() if text.isprintable() and len(text) <= 1000}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200] + "."
