"""Are weights bit-equal on 1, 2 and 4 ranks if gradients are added in a fixed order?

    python benchmarks/elastic.py equal       weights after some steps, by several ways to add
    python benchmarks/elastic.py cost        a step on two ranks beside DistributedDataParallel
    python benchmarks/elastic.py memory      of a rank, by the same ways

The global batch is cut into a fixed number of micro-batches of a fixed size. A rank computes the
gradients of its own ones one after the other. They are added in a binary tree over the numbers of
the micro-batches: a rank has a whole subtree, and what is above goes on between ranks that are
neighbours, then neighbours of those. So each sum has the same two summands wherever it is computed,
and a + b is b + a in floating point too.

Two ways to add between ranks are tried. "halves" is that of the knob `elastic`: it exchanges
halves, quarters, ... and puts them together again, which moves as much as a ring does. "pairs" lets
each pair of ranks reduce everything, level by level, which moves as much on two ranks and is
simpler.
"ddp" is DistributedDataParallel with no_sync over the same micro-batches, and "ddp, one batch" is
what one would do without any of this.

Each rank has one thread. Gradients stay float32 in bfloat16, too, as they do under autocast.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convnextv2.kernels import choice
from convnextv2.machine import peak_memory
from convnextv2.model.convnext import create_model
from convnextv2.training.elastic import add_over_ranks

Gradients = list[Tensor]
WAYS = ("halves", "pairs", "ddp", "ddp, one batch")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CLASSES = 1000


def add_in_tree(parts: Iterator[Gradients]) -> Gradients:
    """Add a power of two of gradients in a binary tree, with at most one waiting at each height."""
    waiting: list[tuple[int, Gradients]] = []
    for part in parts:
        height = 0
        while waiting and waiting[-1][0] == height:
            left = waiting.pop()[1]
            torch._foreach_add_(left, part)
            part, height = left, height + 1
        waiting.append((height, part))
    ((_, total),) = waiting
    return total


def pair_groups(rank: int, world_size: int) -> list[Any]:
    """Make the pairs of ranks, and return those that this one is in, from neighbours upwards."""
    groups = []
    for distance in (2**i for i in range(world_size.bit_length() - 1)):
        for low in (low for low in range(world_size) if not low & distance):
            group = dist.new_group([low, low | distance])
            if rank in (low, low | distance):
                groups.append(group)
    return groups


class Trainer:
    """A network and its steps, by one way to add gradients.

    Args:
        way: One of WAYS.
        arguments: Size of the network, side of the images, micro-batches.
        precision: Of autocast.
    """

    def __init__(self, way: str, arguments: argparse.Namespace, precision: torch.dtype) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._way, self._arguments, self._precision = way, arguments, precision
        torch.manual_seed(0)
        self.model = create_model(
            f"convnextv2_{arguments.model}", num_classes=_CLASSES, drop_path_rate=0.1
        )
        self._trained: nn.Module = self.model
        if way.startswith("ddp") and self.world_size > 1:
            self._trained = DistributedDataParallel(self.model)
        self._pairs = pair_groups(self.rank, self.world_size) if way == "pairs" else []
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self._steps = 0

    def step(self) -> None:
        """Take a step on the global batch, with the gradient clipped."""
        share = self._arguments.micro_batches // self.world_size
        numbers = range(self.rank * share, (self.rank + 1) * share)
        if self._way == "ddp, one batch":
            self._backward(list(numbers))
        elif self._way == "ddp":
            for number in numbers:
                is_last = number == numbers[-1] or self.world_size == 1
                with nullcontext() if is_last else self._trained.no_sync():
                    self._backward([number], share)
        else:
            self._add(add_in_tree(self._gradients(number) for number in numbers))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._steps += 1

    def _backward(self, numbers: list[int], divisor: int = 1) -> None:
        """Run forward and backward passes of some micro-batches at once.

        What is random in them, drop path included, follows from step and number.
        """
        batches = [self._batch(number) for number in numbers]
        images, targets = (torch.cat(each) for each in zip(*batches, strict=True))
        images = images.contiguous(memory_format=torch.channels_last)
        torch.manual_seed(1 + self._steps * self._arguments.micro_batches + numbers[0])
        is_float32 = self._precision == torch.float32
        with nullcontext() if is_float32 else torch.autocast("cpu", self._precision):
            logits = self._trained(images)
            loss = nn.functional.cross_entropy(logits.float(), targets) / divisor
        loss.backward()

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(7919 * self._steps + number)
        size, side = self._arguments.micro_batch, self._arguments.side
        images = torch.randn(size, 3, side, side, generator=generator)
        return images, torch.randint(_CLASSES, (size,), generator=generator)

    def _gradients(self, number: int) -> Gradients:
        """Return the gradients of one micro-batch; the parameters lose them."""
        self._backward([number])
        found = [parameter.grad for parameter in self.model.parameters()]
        self._optimizer.zero_grad(set_to_none=True)
        return found

    def _add(self, total: Gradients) -> None:
        """Add over ranks, divide, and give the result to the parameters."""
        if self.world_size > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in total])
            if self._way == "halves":
                add_over_ranks(flat, self.rank, self.world_size)
            for group in self._pairs:
                dist.all_reduce(flat, group=group)
            parts = flat.split([gradient.numel() for gradient in total])
            total = [part.view(old.shape) for part, old in zip(parts, total, strict=True)]
        torch._foreach_div_(total, float(self._arguments.micro_batches))
        for parameter, gradient in zip(self.model.parameters(), total, strict=True):
            parameter.grad = gradient


def rank_equal(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hash the weights after some steps of each combination, and write them to a file."""
    found = {}
    for precision, dtype in PRECISIONS.items():
        for kernels in ("native", "plain"):
            choice.choose(kernels)
            for way in WAYS:
                trainer = Trainer(way, arguments, dtype)
                for _ in range(arguments.steps):
                    trainer.step()
                state = [tensor.detach() for tensor in trainer.model.state_dict().values()]
                weights = torch.cat([tensor.reshape(-1) for tensor in state])
                digest = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
                everywhere: list[Any] = [None] * trainer.world_size
                dist.all_gather_object(everywhere, digest)
                assert len(set(everywhere)) == 1, "ranks differ from each other"
                name = f"{precision}, {kernels}, {way}"
                found[name] = digest
                if trainer.rank == 0:
                    torch.save(weights, Path(arguments.folder) / f"{arguments.tag} {name}.pt")
    return found


def rank_cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds of a step by each way; the ways take turns."""
    choice.choose("native")
    dtype = PRECISIONS[arguments.precision]
    trainers = {way: Trainer(way, arguments, dtype) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(arguments.steps + 1):
        for way, trainer in trainers.items():
            dist.barrier()
            began = time.perf_counter()
            trainer.step()
            dist.barrier()
            if turn:  # the first one compiles and takes memory
                seconds[way].append(time.perf_counter() - began)
    return seconds


def rank_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the peak memory of this rank in some steps by one way."""
    choice.choose("native")
    trainer = Trainer(arguments.way, arguments, PRECISIONS[arguments.precision])
    before = peak_memory(os.getpid())
    for _ in range(3):
        trainer.step()
    return {"start_mib": before >> 20, "peak_mib": peak_memory(os.getpid()) >> 20}


RANKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "equal": rank_equal,
    "cost": rank_cost,
    "memory": rank_memory,
}


def launch(
    arguments: argparse.Namespace, ranks: int, threads: int = 1, **more: Any
) -> dict[str, Any]:
    """Run this script on several ranks, and return what rank 0 found."""
    options = {**vars(arguments), **more}
    words = [
        word
        for name, value in options.items()
        if name != "mode"
        for word in (f"--{name}", str(value))
    ]
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*program, f"--nproc-per-node={ranks}", __file__, arguments.mode, "--rank", *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def equal(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say whether weights are those of one rank, and how far they are from them if not."""
    found: dict[str, Any] = {}
    runs = {"1": (1, 1), "2": (2, 1), "4": (4, 1), "1, again": (1, 1), "1, two threads": (1, 2)}
    with tempfile.TemporaryDirectory() as folder:
        digests = {
            tag: launch(arguments, ranks, threads, folder=folder, tag=tag)
            for tag, (ranks, threads) in runs.items()
        }
        for name in digests["1"]:
            row = {}
            expected = torch.load(Path(folder) / f"1 {name}.pt")
            for tag in list(runs)[1:]:
                weights = torch.load(Path(folder) / f"{tag} {name}.pt")
                if digests[tag][name] == digests["1"][name]:
                    row[tag] = "equal"
                else:
                    row[tag] = f"{float((weights - expected).abs().max()):.1e}"
            found[name] = row
    return found


def cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return medians, and the ratios to "ddp" and to "ddp, one batch", turn by turn."""
    found: dict[str, Any] = {}
    seconds = launch(arguments, arguments.ranks)
    for way, values in seconds.items():
        found[way] = {"s": middle(values)}
        for other in ("ddp", "ddp, one batch"):
            ratios = [a / b for a, b in zip(values, seconds[other], strict=True)]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            found[way][f"over {other}"] = f"{middle(ratios):.3f} ({spread})"
    return found


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the peak of rank 0 for each way, in a process of its own."""
    return {way: launch(arguments, arguments.ranks, way=way) for way in WAYS}


def middle(values: list[float]) -> float:
    """Return the median."""
    return sorted(values)[len(values) // 2]


def main() -> None:
    """Run one of the modes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("equal", "cost", "memory"))
    parser.add_argument("--model", default="atto")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--micro_batches", type=int, default=8, help="of all ranks together")
    parser.add_argument("--micro_batch", type=int, default=4, help="images in each")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2, help="of cost and memory")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="float32")
    for name in ("rank", "folder", "tag", "way"):
        kind: dict[str, Any] = {"action": "store_true"} if name == "rank" else {"default": ""}
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS, **kind)
    arguments = parser.parse_args()
    if arguments.rank:
        del arguments.rank
        dist.init_process_group("gloo")
        found = RANKS[arguments.mode](arguments)
        if dist.get_rank() == 0:
            print(json.dumps(found), flush=True)
        dist.barrier()
        dist.destroy_process_group()
        return
    del arguments.rank
    print(
        json.dumps(
            {"equal": equal, "cost": cost, "memory": memory}[arguments.mode](arguments), indent=2
        )
    )


if __name__ == "__main__":
    main()
