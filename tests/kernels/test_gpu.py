"""The kernels for GPUs: their numbers by Triton's interpreter, and their code by its compiler."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import run_program

from convnextv2.kernels.gpu import launch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this machine")


def test_in_the_interpreter_they_compute_what_their_definitions_say() -> None:
    """All of `interpreted.py`, in a process of its own."""
    cases = Path(__file__).with_name("interpreted.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=cases.parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_on_a_cpu_none_of_them_is_imported() -> None:
    """Triton is not imported by them either; PyTorch may import it for itself."""
    code = (
        "import sys; from convnextv2.model.convnext import create_model; import torch;"
        "create_model('convnextv2_atto', num_classes=2)(torch.zeros(1, 3, 32, 32));"
        "assert not [name for name in sys.modules if name.startswith('convnextv2.kernels.gpu.')]"
    )
    status, _, errors = run_program("-c", code)
    assert status == 0, errors


def test_blocks_of_channels_leave_few_lanes_without_one() -> None:
    blocks = [launch.channel_block(channels, 64) for channels in (3, 40, 80, 96, 160, 320, 1280)]
    assert blocks == [16, 16, 16, 32, 32, 64, 64]


@pytest.mark.parametrize(
    ("positions", "programs", "block"),
    [(1, 1, 32), (100_000, 1, 32), (3136, 7, 64), (49, 5000, 64)],
)
def test_shares_cover_all_positions_in_whole_blocks(
    positions: int, programs: int, block: int
) -> None:
    share = launch.chunk(positions, programs, block)
    parts = launch.ceil_div(positions, share)
    assert share % block == 0 and (parts - 1) * share < positions <= parts * share
    assert parts <= max(1, launch.ceil_div(launch.PROGRAMS, programs))


def test_they_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """To machine code, without spilling registers, and reading 16 bytes at once."""
    program = Path(__file__).with_name("compiled.py")
    code, _, errors = run_program(program, 80, 90, TRITON_CACHE_DIR=str(tmp_path))
    assert code == 0, errors[-4000:]
