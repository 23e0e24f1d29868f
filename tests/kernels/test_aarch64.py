"""The kernels for aarch64, compiled by a cross compiler, run by an emulator.

Each function computes what PyTorch does, on this machine, and the same bits with two threads as
with one. On Debian and Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user.
"""

import shutil
import struct
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

from convnextv2.kernels.selfcheck import disagreement
from convnextv2.kernels.sources import file_name

ROOT = Path(__file__).parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", shutil.which("qemu-aarch64")
SYSTEM = Path("/usr/aarch64-linux-gnu")

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None or EMULATOR is None or not SYSTEM.is_dir(),
    reason=f"needs {COMPILER} and qemu-aarch64",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for aarch64, and the program that calls it."""
    made = tmp_path_factory.mktemp("aarch64")
    script = ROOT / "scripts" / "bundle_kernels.py"
    build = [sys.executable, script, made, "--machine", "aarch64", "--compiler", COMPILER]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    # It brings the OpenMP runtime, as PyTorch does for Python.
    source = Path(__file__).with_name("emulated.cpp")
    link = ["-Wl,--no-as-needed", "-lgomp", "-ldl", "-o", made / "emulated"]
    subprocess.run([COMPILER, source, *link], check=True)
    return made


class Emulated:
    """Calls a function of the library as `library._call_in` does."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads, self._numbers = folder, threads, count()
        self.outs: list[Tensor] = []

    def __call__(self, name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
        suffix = {torch.float32: "float", torch.bfloat16: "bfloat16"}[x.dtype]
        path = self._folder / f"call-{self._threads}-{next(self._numbers)}"
        path.write_bytes(b"".join(map(record, arguments)))
        program = [EMULATOR, "-L", SYSTEM, self._folder / "emulated"]
        library = self._folder / file_name("armv8-a")
        subprocess.run(
            [*program, library, f"{name}_{suffix}", str(self._threads), path], check=True
        )
        out = arguments[-1]
        assert isinstance(out, Tensor)
        size = out.numel() * out.element_size()
        written = bytearray(path.read_bytes()[-size:])
        out.copy_(torch.frombuffer(written, dtype=out.dtype).reshape(out.shape))
        self.outs.append(out)


def record(argument: Tensor | int | None) -> bytes:
    if argument is None:
        return struct.pack("<qq", 2, 0)
    if isinstance(argument, int):
        return struct.pack("<qq", 0, argument)
    content = bytes(argument.contiguous().view(torch.uint8).numpy())
    return struct.pack("<qq", 1, len(content)) + content


def test_the_functions_for_aarch64_agree_with_pytorch_on_any_number_of_threads(
    folder: Path,
) -> None:
    one, two = Emulated(folder, 1), Emulated(folder, 2)
    assert disagreement(one) == ""
    assert disagreement(two) == ""
    assert len(one.outs) == len(two.outs) == 29
    assert all(map(torch.equal, one.outs, two.outs))
