"""Measures what sharding saves and costs, and checks the formula for clusters.

    python benchmarks/sharding.py memory     peak of a rank, with and without sharding
    python benchmarks/sharding.py save       what a checkpoint in the background costs the steps
    python benchmarks/sharding.py cluster    seconds and bytes of a step on 1, 2 and 4 ranks beside
                                             the formula of convnextv2.training.cluster
    python benchmarks/sharding.py huge       two real steps of huge on two ranks (18 GB)

Ranks are processes of this machine, on CPUs, with one thread each. With --link_mbit, `cluster` puts
each rank into a network namespace of its own behind a link of that speed (Linux, as root, with the
tools ip and tc). The bytes are those that the system counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from convnextv2.checkpoint import Checkpoint
from convnextv2.distributed import Place, SideChannel
from convnextv2.kernels import choice
from convnextv2.model.convnext import create_model
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.training.cluster import Cluster, Network, network_of, step_of, traffic_of
from convnextv2.training.ema import WeightAverage
from convnextv2.training.optim import build_optimizer
from convnextv2.training.saver import Saver
from convnextv2.training.shard import shard_model, skeleton
from convnextv2.training.state import optimizer_tensors
from convnextv2.training.train import data_parallel_options
from convnextv2.weights.description import Description

_CLASSES = 1000


class Trainer:
    """A network on this rank, and its steps on random images."""

    def __init__(self, arguments: argparse.Namespace, place: Place) -> None:
        self._arguments, self.place = arguments, place
        recipe = Recipe(shard=arguments.way == "shard")
        choice.choose("auto")
        torch.manual_seed(0)
        with skeleton(recipe.shard, place):
            self.model = create_model(f"convnextv2_{arguments.model}", num_classes=_CLASSES)
        self._trained: nn.Module = self.model
        if place.world_size > 1:
            if recipe.shard:
                shard_model(self.model, place)
            else:
                options = data_parallel_options(self.model, place.device)
                self._trained = nn.parallel.DistributedDataParallel(self.model, **options)
        self.optimizer = build_optimizer(recipe, self.model)
        self.average = WeightAverage(self.model, 0.9999) if arguments.ema else None
        self.steps = 0

    def step(self) -> float:
        """Take a step, and return its loss."""
        side, size = self._arguments.side, self._arguments.batch_size
        torch.manual_seed(self.steps * self.place.world_size + self.place.rank)
        images = torch.randn(size, 3, side, side).contiguous(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(self._trained(images), torch.randint(_CLASSES, (size,)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.average is not None:
            self.average.update(self.steps)
        return float(loss.detach())

    def timed_steps(self, count: int) -> list[float]:
        """Take steps together with the other ranks, and return the seconds of each."""
        seconds = []
        for _ in range(count):
            self.place.barrier()
            began = time.perf_counter()
            self.step()
            self.place.barrier()
            seconds.append(time.perf_counter() - began)
        return seconds


def peak_mib() -> int:
    """Return the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def rank_memory(arguments: argparse.Namespace, place: Place) -> dict[str, Any]:
    """Take steps, and return the peak of this rank, and that before the model was built."""
    before = peak_mib()
    trainer = Trainer(arguments, place)
    built = peak_mib()
    losses = [trainer.step() for _ in range(arguments.steps)]
    return {"start_mib": before, "built_mib": built, "peak_mib": peak_mib(), "losses": losses}


def rank_cluster(arguments: argparse.Namespace, place: Place) -> dict[str, Any]:
    """Return the seconds of steps, and the bytes that this rank's interface sent in each."""
    trainer = Trainer(arguments, place)
    trainer.timed_steps(2)
    counter = Path(f"/sys/class/net/{arguments.interface}/statistics/tx_bytes")
    before = int(counter.read_text())
    seconds = trainer.timed_steps(arguments.steps)
    place.barrier()
    sent = (int(counter.read_text()) - before) / arguments.steps
    return {"seconds": seconds, "bytes": sent, "network": asdict(network_of(trainer.model))}


def rank_save(arguments: argparse.Namespace, place: Place) -> dict[str, Any]:
    """Take turns of steps with and without a save, and return the seconds of each turn."""
    trainer = Trainer(arguments, place)
    channel = SideChannel(place, timeout_s=600)
    run = Run(Path(arguments.folder))
    saver = Saver(lambda made: _write(run, made, channel), in_background=True)
    description = Description("classifier", "custom", trainer.model.arguments)
    turns: dict[str, list[float]] = {
        "with": [], "without": [], "call": [], "cpu with": [], "cpu without": []
    }  # fmt: skip
    trainer.timed_steps(2)
    for turn in range(arguments.turns + 1):
        for kind in ("without", "with"):
            place.barrier()
            began, cpu_began = time.perf_counter(), time.process_time()
            if kind == "with":
                assert trainer.average is not None
                made = Checkpoint(
                    description, trainer.model.state_dict(), trainer.average.tensors,
                    optimizer_tensors(trainer.optimizer, trainer.model),
                    {"epoch": 0, "step": trainer.steps, "batch": 1},
                )  # fmt: skip
                saver.save(made)
                called = time.perf_counter() - began
            for _ in range(arguments.steps):
                trainer.step()
            if kind == "with":
                saver.wait()
            place.barrier()
            took = time.perf_counter() - began
            if turn:  # the first save takes new memory
                turns[kind].append(took)
                turns[f"cpu {kind}"].append(time.process_time() - cpu_began)
                if kind == "with":
                    turns["call"].append(called)
    return turns


def _write(run: Run, checkpoint: Checkpoint, channel: SideChannel) -> None:
    run.save_sharded_checkpoint(checkpoint, channel)
    if channel.rank == 0:
        run.prune(1)


RANKS = {
    "memory": rank_memory,
    "huge": rank_memory,
    "cluster": rank_cluster,
    "save": rank_save,
}


def launch(arguments: argparse.Namespace, ranks: int, **more: Any) -> list[dict[str, Any]]:
    """Run this script on several ranks, and return what each found."""
    options, own = {**vars(arguments), **more}, ("mode", "interface")
    words = [f"--{name}={value}" for name, value in options.items() if name not in own]
    with namespaces(ranks, arguments.link_mbit) as (prefixes, address, interface):
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": interface,
            "MASTER_ADDR": address,
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(ranks),
        }
        command = [sys.executable, __file__, arguments.mode, f"--interface={interface}", *words]
        processes = [
            subprocess.Popen(
                [*prefixes[rank], *command], stdout=subprocess.PIPE, text=True,
                env=environment | {"RANK": str(rank)},
            )
            for rank in range(ranks)
        ]  # fmt: skip
        told = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "a rank failed"
    return [json.loads(text.strip().splitlines()[-1]) for text in told]


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


@contextmanager
def namespaces(ranks: int, link_mbit: float) -> Iterator[tuple[list[list[str]], str, str]]:
    """Put ranks behind links of a limited speed, in both directions.

    Yields:
        What to write before the command of each rank, the address of the first, and the interface.
    """
    if not link_mbit:
        yield [[]] * ranks, "127.0.0.1", "lo"
        return
    limit = f"tbf rate {link_mbit}mbit burst 256kb latency 200ms".split()
    try:
        _run("ip link add cvbridge type bridge")
        _run("ip link set cvbridge up")
        for rank in range(ranks):
            _run(f"ip netns add cv{rank}")
            _run(f"ip link add cvouter{rank} type veth peer name cvlink netns cv{rank}")
            _run(f"ip link set cvouter{rank} master cvbridge up")
            inside = f"ip netns exec cv{rank}"
            _run(f"{inside} ip address add 10.77.0.{rank + 1}/24 dev cvlink")
            _run(f"{inside} ip link set cvlink up")
            _run(f"{inside} ip link set lo up")
            for where, device in ((inside, "cvlink"), ("", f"cvouter{rank}")):
                subprocess.run(
                    [*where.split(), *"tc qdisc add dev".split(), device, "root", *limit],
                    check=True,
                )
        yield [f"ip netns exec cv{rank}".split() for rank in range(ranks)], "10.77.0.1", "cvlink"
    finally:
        for rank in range(ranks):
            subprocess.run(["ip", "netns", "delete", f"cv{rank}"], check=False)
        subprocess.run(["ip", "link", "delete", "cvbridge"], check=False)


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the peak of each rank for both ways, without what Python and PyTorch take."""
    found = {}
    for way in ("ddp", "shard"):
        ranks = launch(arguments, arguments.ranks, way=way)
        found[way] = {
            "peak_mib": [rank["peak_mib"] - rank["start_mib"] for rank in ranks],
            "built_mib": [rank["built_mib"] - rank["start_mib"] for rank in ranks],
            "losses": ranks[0]["losses"],
        }
    return found


def huge(arguments: argparse.Namespace) -> dict[str, Any]:
    """Take two steps of huge on two ranks, if there is enough memory."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    available = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) / 2**20
    assert available >= 18, f"{available:.1f} GiB are available ({free:.1f} free), 18 are needed"
    began = time.perf_counter()
    ranks = launch(arguments, 2, way="shard", model="huge", steps=2, batch_size=1, side=64)
    return {
        "peak_mib": [rank["peak_mib"] for rank in ranks],
        "built_mib": [rank["built_mib"] for rank in ranks],
        "losses": [rank["losses"] for rank in ranks],
        "seconds_with_start": round(time.perf_counter() - began),
    }


def save(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a save costs, as a share of a minute."""
    with tempfile.TemporaryDirectory() as folder:
        turns = launch(arguments, arguments.ranks, way="shard", ema=1, folder=folder)[0]
    found: dict[str, Any] = {"call_s": round(median(turns["call"]), 3)}
    # On a machine with other work, the time of the processor says more than that of the clock.
    for name, before in (("clock", ""), ("processor", "cpu ")):
        pairs = zip(turns[f"{before}with"], turns[f"{before}without"], strict=True)
        extra = [a - b for a, b in pairs]
        found[name] = {
            "turn_s": round(median(turns[f"{before}without"]), 3),
            "extra_s": round(median(extra), 3),
            "extra_s of each turn": [round(value, 3) for value in extra],
            "share of a minute": round(median(extra) / 60, 4),
        }
    return found


def cluster(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what was measured beside what the formula says."""
    rows = []
    alone = launch(arguments, 1, way="ddp")[0]
    pace = arguments.batch_size / median(alone["seconds"])
    network = Network(**alone["network"])
    for ranks in arguments.cluster_ranks:
        for way in ("ddp", "shard"):
            found = launch(arguments, ranks, way=way)
            seconds = median(found[0]["seconds"])
            traffic = traffic_of(network, ranks, sharded=way == "shard", accumulate=1)
            everyone = 1 if arguments.link_mbit else ranks  # one loopback counts for all
            is_sharded = way == "shard" and ranks > 1
            again = is_sharded * 4 * network.parameters * (ranks - 1) / ranks
            sent = median(rank["bytes"] for rank in found) / everyone
            row: dict[str, Any] = {
                "ranks": ranks,
                "way": way,
                "measured_s": round(seconds, 4),
                "measured_mbytes": round(sent / 1e6, 2),
                "formula_mbytes": round(traffic.bytes_sent / 1e6, 2),
                # gloo reduces everything to all in place of a reduce-scatter.
                "with_gloo_mbytes": round((traffic.bytes_sent + again) / 1e6, 2),
            }
            if arguments.link_mbit:
                step = step_of(
                    network, Cluster(ranks, arguments.link_mbit / 1000),
                    batch_size=arguments.batch_size, accumulate=1, images_per_second=pace,
                    sharded=way == "shard",
                )  # fmt: skip
                row |= {"least_s": round(step.least_s, 4), "most_s": round(step.most_s, 4)}
                row |= {name: round(value, 4) for name, value in asdict(step).items()}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Run one of the modes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=tuple(RANKS))
    parser.add_argument("--model", default="atto")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5, help="of save")
    parser.add_argument("--ranks", type=int, default=2, help="of memory and save")
    parser.add_argument("--link_mbit", type=float, default=0.0, help="of cluster")
    parser.add_argument("--cluster_ranks", type=_numbers, default=(2, 4))
    parser.add_argument("--ema", type=int, default=1)
    for name in ("way", "folder", "interface"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo")
        found = RANKS[arguments.mode](arguments, Place(torch.device("cpu"), rank, ranks, ranks))
        print(json.dumps(found), flush=True)
        dist.barrier()
        dist.destroy_process_group()
        return
    modes = {"memory": memory, "huge": huge, "save": save, "cluster": cluster}
    print(json.dumps(modes[arguments.mode](arguments), indent=2))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.strip("()").split(",") if word)


if __name__ == "__main__":
    main()
