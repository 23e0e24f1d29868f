"""Steps of masked pre-training on several gloo ranks: how much of one process's pace is left.

    python benchmarks/peers/ranks.py      # one process, all threads
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/peers/ranks.py

The second command runs the same global batch on two ranks of one thread. Rank 0 prints the images
per second of all ranks together, the median of the steps after the second, and their spread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from convnextv2.evaluation.timing import take_turns
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE, draw_masks


def pairs(rounds: int = 5) -> dict[str, Any]:
    """Let one process with two threads and two ranks of one thread take turns.

    Args:
        rounds: How often each of them is started.

    Returns:
        The images/s of each start, and the ratios of starts side by side.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    starts = {
        "one process, two threads": ([sys.executable, __file__], "2"),
        "two ranks of one thread": ([*torchrun, __file__], "1"),
    }
    rates: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, (command, threads) in starts.items():
            environment = os.environ | {"OMP_NUM_THREADS": threads}
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            )
            rates[name].append(json.loads(done.stdout.splitlines()[-1])["rate"])
    one, two = (torch.tensor(found) for found in rates.values())
    shares = (two / one).sort().values.tolist()
    return {"rates": rates, "ratios": shares, "median": shares[len(shares) // 2]}


def main() -> None:
    """Measure the steps of this rank."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="atto")
    parser.add_argument("--batch", type=int, default=32, help="of all ranks together")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = FCMAE(create_model(f"convnextv2_{arguments.model}", num_classes=None))
    trained = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    share = arguments.batch // world
    images = torch.randn(share, 3, 224, 224).to(memory_format=torch.channels_last)
    masks = draw_masks(share, (7, 7), 0.6, torch.Generator().manual_seed(0))

    def step() -> None:
        trained(images, *masks).backward()
        optimizer.step()
        optimizer.zero_grad()

    timing = take_turns({"step": step}, seconds=0, min_rounds=arguments.steps)["step"]
    if int(os.environ.get("RANK", 0)) == 0:
        figures = {
            "ranks": world,
            "threads": torch.get_num_threads(),
            "rate": arguments.batch / timing.median,
        }
        print(json.dumps(figures | {"spread": timing.spread}), flush=True)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
