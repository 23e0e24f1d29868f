"""Check and measure everything that needs a GPU, in one run of less than ten minutes.

    python benchmarks/device --out device-h200
    python benchmarks/device --out device-h200 --only correctness,kernels
    python benchmarks/device --out tiny --interpret    a test of this script on a CPU

With `--interpret` the sizes are tiny and the times mean nothing.

It writes device.json after every section, and device.md at the end. The sections run in this order.
A section that no longer fits into `--limit_s` is left out, and the page says so:

    copy          the bandwidth of a copy, to compare that of the kernels with
    correctness   every kernel against its definition in float64, and that a call repeats its bits
    agreement     the loss of visible tiles against that of masked-dense code
    waiting       that a step does not synchronise with the device
    kernels       time of every kernel, its share of the copy's bandwidth, and PyTorch's time
    fcmae         steps of FCMAE, eager, beside masked-dense code, with their peak memory
    supervised    steps of supervised training, eager, beside timm
    profile       the kernels in which a step of FCMAE spends its time
    shard         sharded steps (FSDP2) on this one device: batch norms, gathers in bfloat16
    compiled      the steps of the two sections above, compiled
    graphs        small steps, whose time is that of launching kernels, with CUDA graphs

It needs a GPU that nothing else uses. If timm is installed, its networks are measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if "--interpret" in sys.argv:  # Triton reads it when it defines a kernel
    os.environ["TRITON_INTERPRET"] = "1"
sys.path.append(str(Path(__file__).parents[1] / "peers"))

import torch
from bench import Bench, Row, choose, first_line
from page import report, wrong
from sharded import shard
from single_kernels import copy, correctness, kernels, on_cpu
from steps import agreement, compiled, fcmae, graphs, profile, supervised, waiting

from convnextv2.kernels import choice

SECTIONS: dict[str, tuple[Callable[[Bench], list[Row]], float]] = {
    "copy": (copy, 5),
    "correctness": (correctness, 60),
    "agreement": (agreement, 10),
    "waiting": (waiting, 20),
    "kernels": (kernels, 60),
    "fcmae": (fcmae, 40),
    "supervised": (supervised, 25),
    "profile": (profile, 15),
    "shard": (shard, 30),
    "compiled": (compiled, 240),
    "graphs": (graphs, 120),
}
"""Each section, and the seconds that must be left for it to begin."""


def machine_of(bench: Bench) -> dict[str, str]:
    """Describe the machine and the versions."""
    found = {"device": "CPU, interpreted: a self-test, no figure means anything"}
    if not bench.interpret:
        properties = torch.cuda.get_device_properties(bench.device)
        found = {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "GiB": f"{properties.total_memory / 2**30:.0f}",
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
            "kernels": choice.choose("auto", bench.device),
        }
    import triton

    versions = {"torch": torch.__version__, "triton": triton.__version__}
    return found | versions | {"python": platform.python_version()}


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and check that the sections and a device are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="folder for device.json and device.md")
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help="sections to run, separated by commas [all]"
    )
    parser.add_argument(
        "--limit_s", type=float, default=560, help="time for all sections together [560]"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="how long each contestant is timed [0.5]"
    )
    parser.add_argument("--interpret", action="store_true", help="test this script on a CPU")
    given = parser.parse_args(arguments)
    for name in given.only.split(","):
        if name not in SECTIONS:
            parser.error(f"--only {name}: expected some of {', '.join(SECTIONS)}")
    if not given.interpret and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device. Use one that has, or --interpret")
    return given


def run_section(bench: Bench, name: str, left_s: float) -> dict[str, Any]:
    """Run a section, unless too little time is left for it.

    Returns:
        Its rows, or why there are none, and the seconds that it took.
    """
    run, needs_s = SECTIONS[name]
    if left_s < needs_s:
        return {"failure": f"left out: {left_s:.0f} s left, {needs_s:.0f} needed", "seconds": 0.0}
    start = time.perf_counter()
    section: dict[str, Any]
    try:
        section = {"rows": run(bench)}
    except Exception as error:  # the other sections are wanted nevertheless
        section = {"failure": first_line(error)}
    return section | {"seconds": time.perf_counter() - start}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, and write what they found. Returns 1 if anything is wrong."""
    given = read_arguments(arguments)
    chosen, out = given.only.split(","), Path(given.out)
    device = torch.device("cpu") if given.interpret else torch.device("cuda", 0)
    bench = Bench(device, given.interpret, 0.0 if given.interpret else given.seconds)
    if bench.interpret:
        library = on_cpu()
        assert library is not None  # kept until the end: without it the operations change back
    choose(bench, "auto")
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine_of(bench), "sections": {}}
    if "copy" not in chosen:
        copy(bench)
    began = time.perf_counter()
    for name in (each for each in SECTIONS if each in chosen):
        section = run_section(bench, name, given.limit_s - (time.perf_counter() - began))
        found["sections"][name] = section
        (out / "device.json").write_text(json.dumps(found, indent=1))
        print(f"{name}: {section.get('failure') or 'done'}, {section['seconds']:.0f} s", flush=True)
    (out / "device.md").write_text(report(found))
    for name in wrong(found):
        print(f"{name}: not as it must be, see {out / 'device.md'}")
    return int(bool(wrong(found)))


if __name__ == "__main__":
    sys.exit(main())
