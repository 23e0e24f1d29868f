"""The pace of training where cores are shared, with threads that spin and threads that sleep.

    python benchmarks/busy.py PHOTOS [--json FILE] [--only steps,runs] [--settings NAME=VALUE,...]

PHOTOS is any folder of photographs, from which files of 500 x 375 px are made. "before" is the
OpenMP runtime's own waiting, "after" what `convnextv2/waiting.py` sets. Steps of FCMAE, of
supervised training and of timm (atto, 128 px, batches of 64) are measured alone, beside one busy
core, beside a program of low priority on every core, and under a quota of three quarters of the
cores. All six processes live at once and take turns in each situation, so that what else disturbs
the machine disturbs all of them. Then whole training runs with one and two loader workers follow,
before and after in turns. It takes about ten minutes on two cores, which should be idle otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from convnextv2 import waiting
from convnextv2.machine import available_cores

sys.path.append(str(Path(__file__).parent / "peers"))

WORKS = ("fcmae", "supervised", "timm")
SIZE, BATCH, FILES, EPOCHS = 128, 64, 768, 4
QUOTA = 0.75
POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY", "OMP_NUM_THREADS")
OWN_DEFAULT = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""The defaults of the runtimes. If they are set, the command line does not choose others."""
SPIN = "while True: pass"
SPIN_LOW = "import os\nos.nice(15)\nwhile True: pass"


def environments(settings: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the environments to compare, without what the user has set."""
    base = {name: value for name, value in os.environ.items() if name not in POLICY}
    return {"before": base | OWN_DEFAULT, "after": base | settings}


class Stepper:
    """A process that makes steps of one work when it is told to."""

    def __init__(self, work: str, environment: dict[str, str]) -> None:
        """Start it, and wait until it is warm."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--step", work],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._read()

    def measure(self, seconds: float) -> float:
        """Return images/s over some seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process that steps has ended; see above")
        return line


def make_steps(work: str) -> None:
    """Be the process of a `Stepper`: read seconds, print images/s."""
    import torch
    from works import random_images, step

    from convnextv2.device import choose_precision
    from convnextv2.model.convnext import create_model
    from convnextv2.model.fcmae import FCMAE, draw_masks

    cpu = torch.device("cpu")
    images = random_images(BATCH, cpu, SIZE)
    targets = torch.randint(1000, (BATCH,))

    def classify(model: torch.nn.Module) -> Callable[[], torch.Tensor]:
        return lambda: torch.nn.functional.cross_entropy(model(images).float(), targets)

    model: torch.nn.Module
    if work == "fcmae":
        model = FCMAE(create_model("convnextv2_atto", num_classes=None))
        masks = draw_masks(BATCH, model.grid(SIZE, SIZE), 0.6, torch.Generator().manual_seed(0))
        loss = partial(model, images, *masks)
    elif work == "supervised":
        model = create_model("convnextv2_atto")
        loss = classify(model)
    else:
        import timm

        model = timm.create_model("convnextv2_atto").to(memory_format=torch.channels_last)
        loss = classify(model)
    run = step(model.train(), loss, choose_precision("auto", cpu), "native" * (work != "timm"), cpu)
    for _ in range(3):
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < float(line):
            run()
            steps += 1
        print(BATCH * steps / (time.perf_counter() - began), flush=True)


@contextmanager
def company(code: str, count: int) -> Iterator[None]:
    """Let processes run beside the measurement."""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def quota(pids: list[int]) -> Iterator[str]:
    """Limit each process to a share of the cores, or to one core where no group can be made.

    Yields:
        What limits them.
    """
    cores = available_cores() * QUOTA
    roots = {2: Path("/sys/fs/cgroup"), 1: Path("/sys/fs/cgroup/cpu")}
    version = 2 if (roots[2] / "cgroup.controllers").exists() else 1
    groups = {pid: roots[version] / f"busy-{os.getpid()}-{pid}" for pid in pids}
    try:
        for pid, group in groups.items():
            group.mkdir()
            if version == 2:
                (group / "cpu.max").write_text(f"{int(cores * 100_000)} 100000")
            else:
                (group / "cpu.cfs_period_us").write_text("100000")
                (group / "cpu.cfs_quota_us").write_text(str(int(cores * 100_000)))
            (group / "cgroup.procs").write_text(str(pid))
        yield f"a quota of {cores:g} cores"
    except OSError:  # no rights, or nothing mounted
        every = os.sched_getaffinity(0)
        _pin(pids, {min(every)})
        yield "all threads on one core"
        _pin(pids, every)
    finally:
        for pid, group in groups.items():
            with suppress(OSError):
                (group.parent / "cgroup.procs").write_text(str(pid))
            with suppress(OSError):
                group.rmdir()


def _pin(pids: list[int], cores: set[int]) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def measure_steps(
    settings: dict[str, str], seconds: float, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure steps in all situations.

    Returns:
        Images/s of each round, by situation and by work with "before" or "after".
    """
    steppers = {
        f"{work}, {when}": Stepper(work, environment)
        for work in WORKS
        for when, environment in environments(settings).items()
    }
    found: dict[str, dict[str, list[float]]] = {}

    def turns(situation: str) -> None:
        paces: dict[str, list[float]] = {name: [] for name in steppers}
        for _ in range(rounds):
            for name, stepper in steppers.items():
                paces[name].append(stepper.measure(seconds))
        found[situation] = paces
        show(situation, paces)

    try:
        turns("idle")
        with company(SPIN, 1):
            turns("one busy core")
        with company(SPIN_LOW, available_cores()):
            turns("company of low priority")
        with quota([stepper.pid for stepper in steppers.values()]) as limit:
            turns(limit)
    finally:
        for stepper in steppers.values():
            stepper.end()
    return found


def measure_runs(
    photos: Path, settings: dict[str, str], folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Measure whole runs with loader workers: ours by the command line, timm's by a plain loop."""
    from make_photographs import make

    data = make(photos, folder / "data", FILES, (500, 375))
    found: dict[str, dict[str, list[float]]] = {}
    for workers in (1, 2):
        paces: dict[str, list[float]] = {}
        for work in WORKS:
            for when, environment in environments(settings).items():
                out = folder / f"{work}-{workers}-{when}"
                run = run_timm if work == "timm" else run_ours
                paces[f"{work}, {when}"] = run(work, data, out, workers, environment)
        found[f"training with {workers} worker{'s' * (workers > 1)}"] = paces
        show(f"training, workers = {workers}", paces)
    return found


def run_ours(
    work: str, data: Path, out: Path, workers: int, environment: dict[str, str]
) -> list[float]:
    """Train by the command line, and return images/s of each epoch but the first."""
    recipe = "fcmae_small_data" if work == "fcmae" else "small_data"
    verb = "pretrain" if work == "fcmae" else "train"
    knobs: dict[str, Any] = {
        "config": recipe,
        "data_dir": data,
        "out": out,
        "workers": workers,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "warmup_epochs": 1,
        "save_every_epochs": EPOCHS,
    }
    if verb == "train":
        knobs["val_while_train"] = False  # the files have no split for it
    command = [sys.executable, "-m", "convnextv2", verb]
    command += [text for name, value in knobs.items() for text in (f"--{name}", str(value))]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    steps = epochs[0]["step"]
    return [steps * BATCH / epoch["train_s"] for epoch in epochs[1:]]


def run_timm(
    work: str, data: Path, out: Path, workers: int, environment: dict[str, str]
) -> list[float]:
    """Train by timm in a process of its own."""
    command = [sys.executable, __file__, "--timm", str(data), "--workers", str(workers)]
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) for line in run.stdout.splitlines()]


def train_timm(data: Path, workers: int) -> None:
    """Train timm's network on timm's loader, and print images/s of each epoch but the first."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader
    from works import step

    from convnextv2.device import choose_precision

    cpu = torch.device("cpu")
    loader = create_loader(
        ImageDataset(str(data)),
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        scale=(0.25, 1.0),
        color_jitter=0.3,
        interpolation="bicubic",
        num_workers=workers,
        device=cpu,
        persistent_workers=True,
        pin_memory=False,
    )
    model = timm.create_model("convnextv2_atto").to(memory_format=torch.channels_last).train()
    batch: list[torch.Tensor] = []

    def loss() -> torch.Tensor:
        images, targets = batch
        return torch.nn.functional.cross_entropy(model(images).float(), targets)

    run = step(model, loss, choose_precision("auto", cpu), "", cpu)
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        for images, targets in loader:
            batch[:] = images.contiguous(memory_format=torch.channels_last), targets
            run()
        if epoch:
            print(len(loader) * BATCH / (time.perf_counter() - began), flush=True)


def show(situation: str, paces: dict[str, list[float]]) -> None:
    """Print the medians of a situation, and what the setting gains."""
    print(f"\n{situation}")
    for work in WORKS:
        before, after = paces[f"{work}, before"], paces[f"{work}, after"]
        ratio = statistics.median(b / a for a, b in zip(before, after, strict=True))
        print(
            f"  {work:<11}{statistics.median(before):8.1f} before{statistics.median(after):8.1f} "
            f"after, images/s{ratio:8.2f}x",
            flush=True,
        )


def shares(steps: dict[str, dict[str, list[float]]]) -> None:
    """Print which share of its idle pace before each work keeps in every situation."""
    print("\nshare of the idle pace before")
    for situation, paces in steps.items():
        for name, values in paces.items():
            idle = statistics.median(steps["idle"][f"{name.partition(',')[0]}, before"])
            print(f"  {situation:<26}{name:<20}{statistics.median(values) / idle:6.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="steps,runs")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", default="", help="NAME=VALUE,... in place of what is set")
    parser.add_argument("--step", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--timm", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        return make_steps(asked.step)
    if asked.timm:
        return train_timm(asked.timm, asked.workers)
    settings = dict(waiting.SETTINGS)
    if asked.settings:
        settings = dict(part.split("=", 1) for part in asked.settings.split(","))
    found: dict[str, Any] = {"settings": settings, "cores": available_cores()}
    print(f"{available_cores()} cores; after: {settings}")
    if "steps" in asked.only:
        found["steps"] = measure_steps(settings, asked.seconds, asked.rounds)
        shares(found["steps"])
    if "runs" in asked.only:
        if asked.photos is None:
            parser.error("PHOTOS is needed for the runs")
        with tempfile.TemporaryDirectory() as folder:
            found["runs"] = measure_runs(asked.photos, settings, Path(folder))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    return None


if __name__ == "__main__":
    main()
