"""Reads and writes the tensors of a checkpoint in parts, one part for each rank.

The format is that of torch.distributed.checkpoint: `.metadata` says which piece of which tensor is
where, and `__RANK_0.distcp` holds the pieces of a rank. Any number of ranks can read it, because
each reads the pieces that it needs.

`.metadata` is a pickle. It is read with only the few classes that PyTorch writes into it, so
nothing else in it can be executed.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convnextv2.distributed import SideChannel
from convnextv2.errors import DamagedCheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

Allocate = Callable[[str, torch.Size, torch.dtype], Tensor]
"""Makes a tensor to read into, from the key, the shape and the dtype of a tensor on the disk."""

_OWN = "torch.distributed.checkpoint.metadata"
_KNOWN = frozenset(
    {
        *((_OWN, name) for name in ("ChunkStorageMetadata", "Metadata", "MetadataIndex")),
        *((_OWN, name) for name in ("StorageMeta", "TensorProperties", "TensorStorageMetadata")),
        (_OWN, "_MEM_FORMAT_ENCODING"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("torch", "Size"),
        # Paths of the machine that wrote it. Python 3.13 has them in another module.
        *(("pathlib", name) for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
        ("pathlib._local", "PosixPath"),
        *(("torch", name) for name in ("float32", "float64", "float16", "bfloat16")),
        *(("torch", name) for name in ("int64", "int32", "int16", "int8", "uint8", "bool")),
    }
)


def write_shards(folder: Path, tensors: Mapping[str, Tensor], channel: SideChannel) -> None:
    """Write this rank's part of some tensors. All ranks must call this together.

    Args:
        folder: A folder that does not exist yet, on a file system that all ranks share.
        tensors: The tensors by key. Tensors that are not sharded are written by the first rank.
        channel: The connection to the other ranks.

    Raises:
        OSError: The system of this rank or of another one cannot write the files.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(
            dict(tensors),
            storage_writer=FileSystemWriter(folder),
            planner=DefaultSavePlanner(dedup_save_to_lowest_rank=True),
            process_group=channel.group,
        )
    except CheckpointException as error:  # a BaseException, which no handler of Exception catches
        rank, (cause, _) = sorted(error.failures.items())[0]
        where = "" if rank == channel.rank else f"rank {rank}: "
        if isinstance(cause, OSError) and cause.errno:
            raise OSError(cause.errno, f"{where}{cause.strerror}", cause.filename) from error
        if isinstance(cause, RuntimeError) and "PytorchStreamWriter" in str(cause):
            # PyTorch's writer drops the message of the system.
            raise OSError(f"{where}{folder}: cannot be written ({cause})") from error
        raise RuntimeError(f"{where}{folder}: cannot be written ({cause})") from error


def read_shards(
    folder: Path, *, prefix: str = "", allocate: Allocate | None = None
) -> dict[str, Tensor]:
    """Read tensors that the ranks wrote in parts. Each rank may call this independently.

    Args:
        folder: The folder that `write_shards` wrote.
        prefix: Read only the tensors whose keys begin with this text.
        allocate: Makes the tensors to read into. Of a DTensor, only this rank's part is
            read. None reads whole tensors on the CPU.

    Returns:
        The tensors by key.

    Raises:
        DamagedCheckpointError: The files are not what `write_shards` writes.
        OSError: The system cannot read them.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    class Reader(FileSystemReader):
        """PyTorch's reader, which interprets the metadata with known classes only."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            """Return the metadata that was already read."""
            return metadata

    metadata = _read_metadata(folder)
    tensors = {
        key: _allocated(key, stored, allocate)
        for key, stored in metadata.state_dict_metadata.items()
        if key.startswith(prefix)
    }
    try:
        with warnings.catch_warnings():  # it warns that only this process reads
            warnings.simplefilter("ignore")
            load(tensors, storage_reader=Reader(folder), no_dist=True)
    except CheckpointException as error:
        _, (cause, _) = sorted(error.failures.items())[0]
        if isinstance(cause, OSError):
            raise cause from error
        raise DamagedCheckpointError(f"{folder}: cannot be read ({cause}).") from error
    return tensors


def _allocated(key: str, stored: Any, allocate: Allocate | None) -> Tensor:
    size, dtype = stored.size, stored.properties.dtype
    return torch.empty(size, dtype=dtype) if allocate is None else allocate(key, size, dtype)


def _read_metadata(folder: Path) -> Metadata:
    """Read `.metadata`, and check that it names files of this folder only."""
    from torch.distributed.checkpoint.metadata import (
        Metadata,
        StorageMeta,
        TensorStorageMetadata,
    )

    path = folder / ".metadata"
    try:
        with open(path, "rb") as file:
            metadata = _Known(file).load()
        assert isinstance(metadata, Metadata)
        stored = metadata.state_dict_metadata.values()
        assert all(isinstance(each, TensorStorageMetadata) for each in stored)
        names = {str(info.relative_path) for info in metadata.storage_data.values()}
        assert all(Path(name).name == name for name in names)
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{path}: no such file.") from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DamagedCheckpointError(
            f"{path}: is not what torch.distributed.checkpoint writes ({error})."
        ) from error
    metadata.storage_meta = metadata.storage_meta or StorageMeta()
    return metadata


class _Known(pickle.Unpickler):
    """Loads the pickle of `.metadata`, and refuses every class that is not part of it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)
