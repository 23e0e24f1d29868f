import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convnextv2.device import choose_device, choose_precision
from convnextv2.distributed import Place, start
from convnextv2.errors import DeviceError
from convnextv2.launch import Launch, find_launch


@pytest.mark.parametrize(
    ("env", "launch"),
    [
        ({}, Launch()),
        (
            {
                "RANK": "3",
                "WORLD_SIZE": "4",
                "LOCAL_RANK": "1",
                "LOCAL_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_SIZE": "9",
            },
            Launch("torchrun", 3, 4, 1, 2),
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "PMIX_NAMESPACE": "77",
            },
            Launch("mpirun", 1, 2, 1, 2, "77"),
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_LOCALID": "1",
                "SLURM_JOB_ID": "9",
            },
            Launch("SLURM", 5, 8, 1, 4, "9"),
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
            Launch(),
        ),  # python started by hand inside an allocation
    ],
)
def test_launchers_are_recognised_by_their_variables(env: dict[str, str], launch: Launch) -> None:
    assert find_launch(env) == launch


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK = one in the environment: expected a number"),
        ({"RANK": "0", "WORLD_SIZE": "-2"}, "WORLD_SIZE = -2 in the environment: expected a numb"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK = 2 .*: expected less than WORLD_SIZE = 2. Unset"),
        ({"SLURM_STEP_NUM_TASKS": "2(x3)"}, r"SLURM_STEP_NUM_TASKS = 2\(x3\) in the environment"),
    ],
)
def test_variables_that_no_launcher_sets_are_one_line(env: dict[str, str], told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        find_launch(env)


def test_without_a_launcher_distribute_true_is_one_process_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    place, notes = start("cpu", True)
    assert (place.world_size, place.is_main) == (1, True)
    assert len(notes) == 1 and "one process" in notes[0]


def test_ranks_that_would_write_the_same_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match="distribute = False"):
        start("cpu", False)


def test_several_hosts_without_an_address_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in {"RANK": "0", "SIZE": "4", "LOCAL_RANK": "0", "LOCAL_SIZE": "2"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with pytest.raises(DeviceError, match="MASTER_ADDR"):
        start("cpu", "auto")


@pytest.mark.skipif(
    torch.accelerator.is_available(), reason="needs a machine without an accelerator"
)
@pytest.mark.parametrize("name", ["GPU", "Ascend", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_an_error_not_the_cpu(name: str) -> None:
    with pytest.raises(DeviceError, match="only a CPU"):
        choose_device(name)


def test_device_and_precision_by_name() -> None:
    cpu = choose_device("CPU")
    assert cpu == torch.device("cpu")
    assert choose_precision("float16", cpu) == torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert choose_precision("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    with pytest.raises(DeviceError, match="expected auto"):
        choose_device("toaster")


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), torch.float32),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
    ],
)
def test_auto_is_the_half_precision_that_a_gpu_has(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda:0")) == dtype


GRADIENTS = """
import sys, torch
from convnextv2.distributed import leave, start
from convnextv2.model.convnext import ConvNeXtV2
place, _ = start("cpu")
torch.manual_seed(0)
model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3).double()
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
images, targets = torch.randn(8, 3, 32, 32, dtype=torch.float64), torch.arange(8) % 3
wrapped = model
if place.world_size > 1:
    if place.rank:  # rank 0's weights are what counts
        torch.nn.init.zeros_(model.head.weight)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
share = slice(place.rank, None, place.world_size)
torch.nn.functional.cross_entropy(wrapped(images[share]), targets[share]).backward()
if place.is_main:
    torch.save([parameter.grad for parameter in model.parameters()], sys.argv[1])
leave()
"""


def launch(command: list[str], script: str, out: Path) -> list[torch.Tensor]:
    program = out.with_suffix(".py")
    program.write_text(script)
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMPI_")}
    done = subprocess.run(
        [*command, str(program), str(out)],
        env=env | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(out)


def mpirun() -> list[str]:
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """The gradients of the joint batch by one process."""
    return launch([sys.executable], GRADIENTS, tmp_path_factory.mktemp("alone") / "one.pt")


@pytest.mark.parametrize("launcher", ["torchrun", "mpirun"])
def test_two_ranks_average_to_the_gradients_of_the_joint_batch(
    launcher: str, alone: list[torch.Tensor], tmp_path: Path
) -> None:
    if launcher == "mpirun" and not shutil.which("mpirun"):
        pytest.skip("mpirun is not installed")
    command = (
        mpirun()
        if launcher == "mpirun"
        else [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    )
    two = launch(command, GRADIENTS, tmp_path / "two.pt")
    assert (
        max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(two, alone, strict=True))
        < 1e-10
    )


def test_one_rank_sums_and_agrees_with_itself() -> None:
    place = Place(torch.device("cpu"))
    assert place.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert place.sum_numbers(True, False, 2.5) == [1.0, 0.0, 2.5]
    assert place.gather("a") == ["a"]
