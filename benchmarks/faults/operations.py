"""Kills before, in and after every file operation of a run.

A point is an operation on a file, counted for that file, and a moment: `before` it, `after` it, or
`half`: what was just written is cut to a half. The run is killed there by SIGKILL, and the same
command is given once more; its end is compared with that of a run that nobody killed. The page
cache of the system survives a kill, so that power losses are not shown here.
"""

from __future__ import annotations

import argparse
import builtins
import io
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from comparison import differences, left_over
from journal import Journal, show
from photographs import make_photographs
from runs import DONE, SMALL, command_line, knob_exists, last_lines, run_forked

Point = tuple[str, str, int, str]
"""Operation, path inside the run folder, how often that came before, moment."""

_LATE = ("convnextv2.verbs.train", "convnextv2.verbs.pretrain", "torch._dynamo")
"""Modules that a run imports late. This process imports them once for all of its copies."""
_BASE = SMALL | {
    "workers": 0,
    "epochs": 4,
    "lr": 0.01,
    "ema": True,
    "ema_decay": 0.9,
    "mindcv_files": True,
    "keep_checkpoints": 1,
    "log_every_steps": 2,
}
_SELDOM = {"val_every_epochs": 2}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "train, latest_k": ("train", _BASE | {"keep_policy": "latest_k"} | _SELDOM),
    "train, top_k": ("train", _BASE | {"keep_policy": "top_k"} | _SELDOM),
    "train, every step": ("train", _BASE | {"epochs": 2, "save_every_steps": 1} | _SELDOM),
    "train, in the foreground": ("train", _BASE | {"epochs": 2, "async_save": False} | _SELDOM),
    "pretrain": ("pretrain", _BASE | {"decoder_dim": 16}),
}


class Watch:
    """Counts the file operations of this process below a folder, and kills it at one of them.

    Args:
        root: The run folder.
        point: Where to die; None for nowhere.
    """

    def __init__(self, root: Path, point: Point | None = None) -> None:
        self.root, self.point = str(root), point
        self.seen: list[Point] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def install(self) -> None:
        """Put itself in front of the operations."""
        for name in ("replace", "rename", "link"):
            setattr(os, name, self._moving(name, getattr(os, name)))
        for name in ("unlink", "remove", "mkdir", "rmdir", "truncate"):
            setattr(os, name, self._naming(name, getattr(os, name)))
        for name in ("fsync", "ftruncate"):
            setattr(os, name, self._of_descriptor(name, getattr(os, name)))
        shutil.rmtree = self._naming("rmtree", shutil.rmtree)
        os.open = self._os_open(os.open)
        os.write = self._os_write(os.write, "write")
        os.pwrite = self._os_write(os.pwrite, "pwrite")
        builtins.open = io.open = self._open(io.open)
        safetensors.torch.serialize_file = self._serialize(safetensors.torch.serialize_file)

    def operation(
        self, name: str, path: Any, call: Callable[[], Any], halve: Callable[[], None] | None = None
    ) -> Any:
        """Do an operation, unless this process is to end at it."""
        inside = self._inside(path)
        if inside is None:
            return call()
        with self._lock:
            number = self._counts[name, inside]
            self._counts[name, inside] += 1
        self._reach((name, inside, number, "before"))
        result = call()
        if halve is not None:
            self._reach((name, inside, number, "half"), halve)
        self._reach((name, inside, number, "after"))
        return result

    def _reach(self, point: Point, last_act: Callable[[], None] = lambda: None) -> None:
        self.seen.append(point)
        if point == self.point:
            last_act()
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal may reach another thread at first

    def _inside(self, path: Any) -> str | None:
        """Return a path below the run folder, without what differs among runs; None outside."""
        path = os.path.abspath(os.fsdecode(path))
        if path != self.root and not path.startswith(self.root + "/"):
            return None
        inside = path[len(self.root) + 1 :] or "."
        inside = re.sub(r"events\.out\.tfevents\.[^/]*", "events", inside)
        inside = re.sub(r"tmp[a-z0-9_]{8}", "tmpX", inside)
        return re.sub(rf"(?<!\d){os.getpid()}(?!\d)", "PID", inside)

    def _moving(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def moved(source: Any, target: Any, **options: Any) -> Any:
            return self.operation(name, target, lambda: call(source, target, **options))

        return moved

    def _naming(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def named(path: Any, *arguments: Any, **options: Any) -> Any:
            whole = _path_of(path) if isinstance(path, int) else path
            if (folder := options.get("dir_fd")) is not None:
                whole = os.path.join(_path_of(folder), os.fsdecode(path))
            return self.operation(name, whole, lambda: call(path, *arguments, **options))

        named.__dict__.update(getattr(call, "__dict__", {}))  # rmtree says there that it is safe
        return named

    def _of_descriptor(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def done(descriptor: Any, *arguments: Any) -> Any:
            path = _path_of(descriptor if isinstance(descriptor, int) else descriptor.fileno())
            return self.operation(name, path, lambda: call(descriptor, *arguments))

        return done

    def _os_open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> Any:
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return call(path, flags, *arguments, **options)
            return self.operation("open", path, lambda: call(path, flags, *arguments, **options))

        return opened

    def _os_write(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def written(descriptor: int, *arguments: Any) -> Any:
            path = _path_of(descriptor)
            before = os.fstat(descriptor).st_size
            return self.operation(
                name, path, lambda: call(descriptor, *arguments), lambda: _halve(path, before)
            )

        return written

    def _open(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            is_path = isinstance(file, str | bytes | os.PathLike)
            if not is_path or not set(mode) & set("wax+") or self._inside(file) is None:
                return call(file, mode, *arguments, **options)
            path = os.path.abspath(os.fsdecode(file))
            result = self.operation("open", path, lambda: call(file, mode, *arguments, **options))
            return _Written(result, self, path)

        return opened

    def _serialize(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def serialized(tensors: Any, filename: Any, *arguments: Any, **options: Any) -> Any:
            return self.operation(
                "serialize",
                filename,
                lambda: call(tensors, filename, *arguments, **options),
                lambda: _halve(filename, 0),
            )

        return serialized


class _Written:
    """A file that is open for writing; to close it is an operation."""

    def __init__(self, file: Any, watch: Watch, path: str) -> None:
        self._file, self._watch, self._path = file, watch, path
        self._begins = os.fstat(file.fileno()).st_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._file.closed:
            self._watch.operation(
                "close", self._path, self._file.close, lambda: _halve(self._path, self._begins)
            )


def _halve(path: Any, begins: int) -> None:
    with io.FileIO(path, "r+") as file:
        size = os.fstat(file.fileno()).st_size
        file.truncate(begins + max(0, size - begins) // 2)


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def run_watched(arguments: Sequence[str], run: Path, point: Point | None, seen: Path | None) -> int:
    """Run a command line in a copy of this process that dies at a point.

    Args:
        arguments: Without the program's name.
        run: The run folder.
        point: Where to die; None for nowhere.
        seen: Where to write the points that were passed; None for nowhere.

    Returns:
        The exit code; -9 if it died.
    """
    watch = Watch(run, point)

    def tell() -> None:
        if seen is not None:
            seen.write_text(json.dumps(watch.seen))

    return run_forked(arguments, run.with_name(run.name + ".log"), watch.install, tell)


def try_points(
    verb: str, knobs: Mapping[str, Any], data: Path, straight: Path, run: Path, points: list[Point]
) -> dict[str, Any]:
    """Kill a run at a point, and each next start at the next one; then let it end, and compare.

    Returns:
        "differences", "left_over", "missed" (points that never came), and "printed" if the last
        start failed.
    """
    arguments = command_line(verb, data, run, knobs)
    missed = []
    for point in points:
        code = run_watched(arguments, run, point, None)
        if code != -signal.SIGKILL:
            missed.append(point)
        _wait_for_another_second(run)
    began = time.perf_counter()
    code = run_watched(arguments, run, None, None)
    found: dict[str, Any] = {"points": points, "missed": missed, "code": code}
    if code != DONE:
        printed = run.with_name(run.name + ".log").read_text(errors="replace")
        found |= {"differences": [f"exit code {code}"], "printed": last_lines(printed)}
    else:
        found |= {"differences": differences(run, straight)}
    return found | {"left_over": left_over(run), "restart_s": time.perf_counter() - began}


def _wait_for_another_second(run: Path) -> None:
    """Wait until the name of the next file of events differs.

    TensorBoard reads these files in the order of the seconds in their names. Two starts in one
    second happen in this study, not to users.
    """
    names = [path.name.split(".") for path in (run / "tensorboard").glob("events*")]
    newest = max((int(name[3]) for name in names), default=0)
    while int(time.time()) <= newest:
        time.sleep(0.01)


def study(arguments: argparse.Namespace) -> bool:
    """Try all points of all configurations. Returns whether every run ended as it should."""
    torch.set_num_threads(1)
    for module in _LATE:
        import_module(module)
    out = arguments.out.resolve() / "operations"
    data = make_photographs(out / "photographs", training=4, validation=2)
    journal = Journal(out / "cases.jsonl")
    rows, all_found = [], []
    for name, (verb, knobs) in CONFIGURATIONS.items():
        if arguments.only and arguments.only not in name:
            continue
        if unknown := [knob for knob in knobs if not knob_exists(knob)]:
            print(f"{name}: left out, this version has no {', '.join(unknown)}.")
            continue
        straight, points = _straight(name, verb, knobs, data, out)
        chosen = [point for point in points if re.search(arguments.at, f"{point[0]} {point[1]}")]
        cases = {json.dumps(point): [point] for point in chosen[:: arguments.every]}
        rng = random.Random(arguments.seed)
        for _ in range(arguments.twice):
            pair = rng.sample(points, 2)
            cases[json.dumps(pair)] = pair
        cases = {f"{name} {key}": case for key, case in cases.items()}
        _try_all(cases, journal, arguments.jobs, verb, knobs, data, straight)
        found = [journal.cases[key] for key in cases]
        all_found += found
        rows.append(_row(name, found))
    columns = [
        "configuration",
        "kills",
        "as if never killed",
        "different",
        "failed",
        "point missed",
    ]
    show(
        "Killed at a file operation, then the same command once more",
        [*columns, "files left over", "s a case"],
        rows,
    )
    _show_differences(all_found)
    return not any(case["differences"] for case in all_found)


def _straight(
    name: str, verb: str, knobs: Mapping[str, Any], data: Path, out: Path
) -> tuple[Path, list[Point]]:
    """Return the run that nobody kills, and its points.

    At first it is checked that the run can be repeated, and that the comparison sees another seed.
    """
    straight = out / re.sub(r"\W+", "-", name) / "straight"
    straight.parent.mkdir(exist_ok=True)
    seen = straight.with_name("points.json")
    if not seen.exists():
        again, other = straight.with_name("again"), straight.with_name("other")
        seeds = {straight: {}, again: {}, other: {"seed": 1}}
        for run, seed in seeds.items():
            shutil.rmtree(run, ignore_errors=True)
            line = command_line(verb, data, run, {**knobs, **seed})
            told = straight.with_name("points.tmp") if run == straight else None
            if code := run_watched(line, run, None, told):
                printed = run.with_name(run.name + ".log").read_text(errors="replace")
                raise RuntimeError(f"{name}: the run ended with {code}: {last_lines(printed)}")
        if found := differences(again, straight):
            raise RuntimeError(f"{name}: two uninterrupted runs differ: {found}")
        parts = {line.split(":")[0].split("/")[0] for line in differences(other, straight)}
        expected = {"last", "checkpoints", "metrics.jsonl", "tensorboard"}
        if missing := expected - parts:
            raise RuntimeError(f"{name}: another seed makes no difference in {missing}")
        os.replace(straight.with_name("points.tmp"), seen)
    return straight, [tuple(point) for point in json.loads(seen.read_text())]


def _try_all(
    cases: Mapping[str, list[Point]],
    journal: Journal,
    jobs: int,
    verb: str,
    knobs: Mapping[str, Any],
    data: Path,
    straight: Path,
) -> None:
    """Try the cases that the journal lacks, `jobs` at a time, each in a copy of this process."""
    pending = [key for key in cases if key not in journal]
    began, total = time.monotonic(), len(pending)
    running: dict[int, tuple[str, Path]] = {}
    while pending or running:
        while pending and len(running) < jobs:
            key = pending.pop(0)
            folder = straight.with_name(f"case-{total - len(pending)}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    found = try_points(verb, knobs, data, straight, folder / "run", cases[key])
                    (folder / "found.json").write_text(json.dumps(found))
                    code = 0
                finally:
                    os._exit(code)
            running[pid] = key, folder
        pid, status = os.wait()
        key, folder = running.pop(pid)
        if status:
            raise RuntimeError(f"{key}: the case itself failed, see {folder}")
        found = json.loads((folder / "found.json").read_text())
        wall_s = (time.monotonic() - began) / (total - len(pending) - len(running))
        journal.add(key, found | {"wall_s": wall_s})
        if not found["differences"]:
            shutil.rmtree(folder)
        else:
            print(key, found["differences"][:3], found.get("printed", ""), flush=True)


def _row(name: str, found: list[dict[str, Any]]) -> list[Any]:
    failed = [case for case in found if case["code"] != DONE]
    different = [case for case in found if case["code"] == DONE and case["differences"]]
    equal = len(found) - len(failed) - len(different)
    kills = sum(len(case["points"]) - len(case["missed"]) for case in found)
    missed = sum(len(case["missed"]) for case in found)
    left = sum(bool(case["left_over"]) for case in found)
    wall_s = f"{found[-1]['wall_s']:.2f}" if found else ""
    return [name, kills, equal, len(different), len(failed), missed, left, wall_s]


def _show_differences(found: list[dict[str, Any]]) -> None:
    """Each kind of difference once, with how often it came and a point where it does."""
    kinds: dict[str, list[str]] = {}
    for case in found:
        points = "; ".join(f"{when} {name} {path} ({n})" for name, path, n, when in case["points"])
        for line in {re.sub(r"\d+", "N", line) for line in case["differences"]}:
            kinds.setdefault(line, []).append(f"{points} {case.get('printed', '')}")
    rows = [[kind, len(points), points[0]] for kind, points in sorted(kinds.items())]
    if rows:
        show("What differs", ["difference", "cases", "for example, killed"], rows)
