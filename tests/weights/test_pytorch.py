"""The numbers of PyTorch's checkpoints."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from convnextv2.weights.pytorch import open_torch

from .bombs import MAGIC, PROTO, STOP, call, number, text

SIZE = 1 << 20


def views(kinds: list[tuple[str, int]]) -> bytes:
    """A dictionary of tensors of one number, each of which claims a storage of its own for it."""
    parts = []
    for i, (kind, count) in enumerate(kinds):
        storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0")
        storage += text("cpu") + number(count) + b"tQ"
        one = call(
            "torch._utils._rebuild_tensor_v2",
            storage,
            b"K\0",
            b"K\1\x85",
            b"K\1\x85",
            b"\x89",
            b"N",
        )
        parts.append(text(f"{i}") + one + b"s")
    return b"}" + b"".join(parts)


def as_old(pickled: bytes, numbers: bytes, path: Path) -> Path:
    """A checkpoint of before 1.6 with one storage of float32."""
    keys = PROTO + b"]" + text("0") + b"a" + STOP
    head = MAGIC + PROTO + b"M\xe9\x03." + PROTO + b"}." + PROTO + pickled + STOP + keys
    path.write_bytes(head + struct.pack("<Q", len(numbers) // 4) + numbers)
    return path


def as_archive(pickled: bytes, numbers: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + pickled + STOP)
        archive.writestr("archive/data/0", numbers)
    return path


@pytest.mark.parametrize("is_archive", [False, True])
def test_a_storage_of_many_lengths_and_types_is_read_once(is_archive: bool, tmp_path: Path) -> None:
    """A small file could fill the memory otherwise."""
    numbers, count = struct.pack("<f", 1.5) * SIZE, SIZE
    types = {
        "Float": count,
        "Double": count // 2,
        "Half": 2 * count,
        "Int": count,
        "Byte": 4 * count,
    }
    kinds = [(f"{name}Storage", each) for name, each in types.items()]
    if not is_archive:
        kinds += [("FloatStorage", count - i) for i in range(1, 50)]
    make = as_archive if is_archive else as_old
    path = make(views(kinds), numbers, tmp_path / "views.pt")
    opened = open_torch(path, is_archive=is_archive)
    tracemalloc.start()
    try:
        tensors = opened.tensors(opened.content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tensors) == len(kinds) and tensors["0"].item() == 1.5
    assert tensors["3"].dtype == torch.int32
    assert peak < 3 * path.stat().st_size
