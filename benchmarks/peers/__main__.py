"""Measure this package against its peers on one machine; the figures stand in docs/benchmarks.md.

    python benchmarks/peers PHOTOS OUT [--only fcmae,train,...] [--seconds 30] [--device cuda]
    python benchmarks/peers/report.py OUT      # writes the tables and the plots

PHOTOS is any folder of photographs, from which the files for the loaders are made. It needs timm
and transformers, and segmentation-models-pytorch for the segmentors; with onnxruntime and openvino
installed, these are measured too.

The contestants of a group take turns in a process of its own. Each memory figure comes from one
more process, and counts what was taken after the imports. Groups that are in OUT already are kept,
so the script may be stopped and started again. On an accelerator only steps and inference are
measured, in four times the batch, and all contestants run in PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import dense
import fcmae
import inference
import loaders
import ranks
import supervised
import torch
from make_photographs import make
from works import Group

from convnextv2.evaluation.timing import ratio, take_turns
from convnextv2.machine import peak_memory

PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "openvino", "pillow")


def groups(device: torch.device, small: Path, large: Path) -> dict[str, Group]:
    """List all groups that can be measured on a device, by name."""
    found = fcmae.groups(device) + supervised.groups(device) + inference.groups(device)
    found += dense.groups(device)
    if device.type == "cpu":
        found += loaders.groups(small, large)
    return {group.name: group for group in found}


def measure(group: Group, seconds: float, device: torch.device) -> dict[str, Any]:
    """Let the contestants of one group take turns, in this process."""
    timings = take_turns(group.all_works(), seconds=seconds, device=device)
    first = next(iter(timings))
    return {
        "work": group.work,
        "model": group.model,
        "precision": group.precision,
        "x": group.x,
        "images": group.images,
        "threads": torch.get_num_threads(),
        "rates": {name: group.images / timing.median for name, timing in timings.items()},
        "spreads": {name: timing.spread for name, timing in timings.items()},
        "ratios": {name: ratio(timings[first], timing) for name, timing in timings.items()},
        "seconds": {name: timing.seconds for name, timing in timings.items()},
    }


def memory(group: Group, contestant: str, device: torch.device) -> int:
    """Measure the memory that one contestant takes, in this process.

    Returns:
        The peak in MiB, weights and optimizer included: beyond the imports, or allocated on the
        accelerator.
    """
    if group.needs:
        importlib.import_module(group.needs)
    if contestant.endswith("compiled"):
        # The compiler's own imports are not the contestant's memory.
        example = torch.randn(8, device=device, requires_grad=True)
        torch.compile(lambda x: (x * x).sin().sum())(example).backward()
    before = peak_memory(os.getpid())
    work = group.build(only=(contestant,))[contestant]
    for _ in range(3):
        work()
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated() >> 20
    return (peak_memory(os.getpid()) - before) >> 20


def machine(device: torch.device) -> dict[str, str]:
    """Describe what the figures belong to."""
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line for line in lines if line.startswith("flags")), "")
    widest = next(
        (name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags), ""
    )
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    found = {"processor": f"{model}, {os.cpu_count()} cores, {widest}"}
    if device.type != "cpu":
        found["device"] = torch.get_device_module(device).get_device_name()
    return {**found, "python": platform.python_version(), **versions}


def main() -> None:
    """Measure all groups that are asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="groups that begin so, separated by commas")
    parser.add_argument("--seconds", type=float, default=30, help="of a group, once compiled [30]")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu, cuda, ... [cpu]")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how this script calls itself
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device, out = arguments.device, arguments.out
    small, large = out / "photographs-500", out / "photographs-1500"
    found = groups(device, small, large)
    if arguments.memory:
        print(memory(found[arguments.one], arguments.memory, device))
        return
    if arguments.one:
        print(json.dumps(measure(found[arguments.one], arguments.seconds, device)))
        return

    out.mkdir(parents=True, exist_ok=True)
    wanted = tuple(arguments.only.split(","))
    chosen = [group for name, group in found.items() if name.startswith(wanted)]
    if any(group.work == "loader" for group in chosen):
        make(arguments.photos, small, 2000, (500, 375))
        make(arguments.photos, large, 512, (1500, 1125))
    (out / "machine.json").write_text(json.dumps(machine(device), indent=2) + "\n")
    command = [sys.executable, __file__, str(arguments.photos), str(out)]
    command += ["--seconds", str(arguments.seconds), "--device", str(device)]
    for group in chosen:
        measure_apart(group, out / f"{group.name.replace(' ', '_')}.json", command)
    if device.type == "cpu" and "ranks".startswith(wanted) and not (out / "ranks.json").exists():
        (out / "ranks.json").write_text(json.dumps(ranks.pairs(), indent=2) + "\n")
        print((out / "ranks.json").read_text(), flush=True)


def measure_apart(group: Group, path: Path, command: list[str]) -> None:
    """Measure what a group's file lacks, in processes of their own, and write the file.

    Args:
        group: The group.
        path: Its file.
        command: The command that starts such a process, without the name of the group.
    """

    def last_line(*arguments: str) -> str:
        one = [*command, "--one", group.name, *arguments]
        done = subprocess.run(one, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.splitlines()[-1]

    found = json.loads(path.read_text() if path.exists() else last_line())
    path.write_text(json.dumps(found, indent=2) + "\n")
    if group.memory_of and "memory_mib" not in found:
        found["memory_mib"] = {name: int(last_line("--memory", name)) for name in group.memory_of}
        path.write_text(json.dumps(found, indent=2) + "\n")
    rates = {name: round(rate, 2) for name, rate in found["rates"].items()}
    print(group.name, rates, found.get("memory_mib", ""), flush=True)


if __name__ == "__main__":
    main()
