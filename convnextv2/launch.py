"""The processes that torchrun, mpirun or SLURM started, as the environment states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convnextv2.errors import DeviceError


@dataclass(frozen=True)
class Launch:
    """A process's place among those that a launcher started, as its environment states it.

    Attributes:
        launcher: "torchrun", "mpirun", "SLURM", or "" if there is none.
        rank: The number of this process.
        world_size: The number of all processes.
        local_rank: The number of this process on its host.
        local_world_size: The number of processes on its host.
        job: The launcher's name for the job.
    """

    launcher: str = ""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    job: str = ""


def find_launch(env: Mapping[str, str]) -> Launch:
    """Read the environment variables of the launchers.

    torchrun wins over mpirun, and mpirun over SLURM. SLURM counts only inside a step of several
    tasks: a plain `python` inside an allocation is one process.

    Args:
        env: The environment.

    Returns:
        The place of this process; a single process if there is no launcher.

    Raises:
        DeviceError: A variable is not a number that a launcher would set.
    """

    def number(name: str) -> int:
        value = env.get(name) or "0"
        if not (value.isascii() and value.isdigit()):
            raise DeviceError(
                f"{name} = {value} in the environment: expected a number, as a launcher sets it. "
                f"Unset {name} to run in one process."
            )
        return int(value)

    if "RANK" in env and "WORLD_SIZE" in env:
        rank, world_size = number("RANK"), number("WORLD_SIZE")
        if rank >= world_size:
            raise DeviceError(
                f"RANK = {rank} in the environment: expected less than WORLD_SIZE = {world_size}. "
                "Unset both to run in one process."
            )
        return Launch(
            "torchrun", rank, world_size, number("LOCAL_RANK"), number("LOCAL_WORLD_SIZE") or 1
        )
    if "OMPI_COMM_WORLD_SIZE" in env:
        rank, world_size, local_rank, local_world_size = (
            number(f"OMPI_COMM_WORLD_{name}")
            for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
        )
        return Launch(
            "mpirun",
            rank,
            world_size,
            local_rank,
            local_world_size,
            job=env.get("PMIX_NAMESPACE", ""),
        )
    if (tasks := number("SLURM_STEP_NUM_TASKS")) > 1:
        per_node = tasks // (number("SLURM_STEP_NUM_NODES") or 1)
        return Launch(
            "SLURM",
            number("SLURM_PROCID"),
            tasks,
            number("SLURM_LOCALID"),
            per_node,
            job=env.get("SLURM_JOB_ID", ""),
        )
    return Launch()
