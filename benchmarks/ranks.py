"""Steps of masked pre-training on several gloo ranks: how much of one process's pace is left.

    python benchmarks/ranks.py                                             # one process, all threads
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/ranks.py      # the same global batch on two ranks of one thread

Prints images per second of all ranks together, by rank 0: the median of steps after the second, and their spread.
"""

import argparse
import json
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from convnextv2.evaluation.timing import take_turns
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE, draw_masks


def main() -> None:
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

    timing = take_turns({"step": step}, seconds=0, least_rounds=arguments.steps)["step"]
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
