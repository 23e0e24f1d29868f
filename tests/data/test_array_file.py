"""Files of arrays: what is read back, what is refused, and how large files are mapped."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from convnextv2.data.array_file import ArrayFileWriter, open_arrays


def write(path: Path, arrays: dict[str, list[object]], size: int) -> None:
    """Write a header, and nothing but a hole after it."""
    header = json.dumps({"arrays": arrays}).encode()
    with open(path, "wb") as file:
        file.write(b"CNXARRY1" + len(header).to_bytes(8, "little") + header)
        file.truncate(16 + len(header) + size)


def advice(path: Path) -> list[str]:
    """Return the flags of the mappings of a file in this process, as the kernel states them."""
    mappings = re.split(
        r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE
    )
    return [
        flags
        for mapping in mappings
        if str(path) in mapping
        for flags in re.findall(r"VmFlags: (.*)", mapping)
    ]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    numbers = np.arange(100_003, dtype=np.int64) ** 2
    with ArrayFileWriter(tmp_path / "a", {"numbers": "int64", "none": "uint8"}) as writer:
        writer.append("numbers", numbers[:70_000])
        writer.append("numbers", numbers[70_000:])
        writer.finish({"form": 1})
    header, arrays = open_arrays(tmp_path / "a")
    assert header == {"form": 1}
    np.testing.assert_array_equal(arrays["numbers"], numbers)
    assert arrays["none"].shape == (0,) and arrays["none"].dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        arrays["numbers"][0] = 1


@pytest.mark.parametrize("array", (["int64", 0, 3], ["int64", -8, 2], ["int64", 0, -1]))
def test_arrays_outside_the_file_are_refused(tmp_path: Path, array: list[object]) -> None:
    write(tmp_path / "a", {"numbers": array}, size=16)
    with pytest.raises(ValueError, match="is cut short"):
        open_arrays(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's flags are those of Linux")
@pytest.mark.parametrize(("size", "random"), ((2**20, False), (2**30, True)))
def test_large_files_are_not_read_ahead(tmp_path: Path, size: int, random: bool) -> None:
    write(tmp_path / "a", {"bytes": ["uint8", 0, size]}, size)
    _, arrays = open_arrays(tmp_path / "a")
    assert arrays["bytes"][size - 1] == 0
    (flags,) = advice(tmp_path / "a")
    assert ("rr" in flags.split()) is random
