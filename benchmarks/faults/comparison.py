"""The differences between two run folders, apart from times.

Everything that a run promises to keep is compared bit for bit: the weights to use, every checkpoint
that is left, the log, the events of TensorBoard, and MindCV's files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tb_logging
from torch import Tensor

from convnextv2.weights.mindspore import read_ckpt
from convnextv2.weights.safetensors import read_tensors

tb_logging.get_logger().setLevel("ERROR")  # it tells of every restart
_TIMES = re.compile(r"(_s|_ms|_mb|_mib|_at|_wait|per_second)$|^(time|seconds)$")
_HASHES = ("files", "sha256")  # the order of what describes a file of weights is not fixed
_NO_RESULT = re.compile(r"^tensorboard/|^\.lock$")
_LEFT_OVER = re.compile(r"\.tmp|\.damaged$|^tmp[a-z0-9_]{8}$")


def differences(run: Path, straight: Path) -> list[str]:
    """List the differences between an interrupted run and an uninterrupted one.

    Args:
        run: The run that was interrupted.
        straight: The same run without an interruption.

    Returns:
        One line for each difference; each begins with the part of the run folder that differs.
    """
    return [
        *_folders(run, straight),
        *_files(run, straight),
        *_records(records(run), records(straight)),
        *_events(run, straight),
        *_result_log(run, straight),
        *_mindcv_checkpoints(run, straight),
    ]


def left_over(run: Path) -> list[str]:
    """List temporary files and damaged checkpoints that were set aside, which only take room."""
    return sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if _LEFT_OVER.search(path.name)
    )


def records(run: Path) -> list[dict[str, Any]]:
    """Read the records of metrics.jsonl; a line that is not whole has the kind "cut"."""
    path = run / "metrics.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            found.append({"kind": "cut", "step": -1})
    return found


def steps_done(run: Path) -> int:
    """Return the last step in the log, which is exact if every step is logged."""
    return max((record["step"] for record in records(run)), default=0)


def steps_saved(run: Path) -> int:
    """Return the step of the newest checkpoint; 0 without one."""
    names = [path.name for path in (run / "checkpoints").glob("epoch-*-step-*")]
    return max((int(name[-8:]) for name in names if name[-8:].isdigit()), default=0)


def _folders(run: Path, straight: Path) -> list[str]:
    """Compare last/, best/ and the checkpoints."""
    found = []
    names = [f"checkpoints/{path.name}" for path in (straight / "checkpoints").iterdir()]
    for name in sorted([*names, "last", "best"]):
        ours, theirs = run / name, straight / name
        if not theirs.exists():
            continue
        for file in sorted(theirs.glob("*.safetensors")):
            found += _tensors(f"{name}/{file.name}", ours / file.name, file)
        for file, part in (("model.json", "training"), ("progress.json", "")):
            if (theirs / file).exists():
                found += _content(f"{name}/{file}", ours / file, theirs / file, part)
    return found


def _files(run: Path, straight: Path) -> list[str]:
    """List the files that only one of both has; events are compared by content."""

    def listed(root: Path) -> set[str]:
        names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        return {name for name in names if not _NO_RESULT.search(name) and not _is_left_over(name)}

    ours, theirs = listed(run), listed(straight)
    found = [f"files: without {name}" for name in sorted(theirs - ours)]
    found += [f"files: {name} too much" for name in sorted(ours - theirs)]
    report = run / "report.html"
    if report.exists() and not report.read_text().rstrip().endswith("</html>"):
        found.append("files: report.html is cut short")
    return found


def _is_left_over(name: str) -> bool:
    return any(_LEFT_OVER.search(part) for part in Path(name).parts)


def _tensors(name: str, ours: Path, theirs: Path) -> list[str]:
    if not ours.exists():
        return []  # `_files` says so
    try:
        found = read_tensors(ours)[0]
    except Exception as error:
        return [f"{name}: cannot be read ({type(error).__name__})"]
    return _unequal(name, found, read_tensors(theirs)[0])


def _unequal(name: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    if ours.keys() != theirs.keys():
        return [f"{name}: other tensors"]
    unequal = [key for key in theirs if not _same_bits(ours[key], theirs[key])]
    return [f"{name}: {len(unequal)} of {len(theirs)} tensors differ"] if unequal else []


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(*(x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)))


def _content(name: str, ours: Path, theirs: Path, part: str) -> list[str]:
    """Compare two JSON files, or one part of them."""
    if not ours.exists():
        return []  # `_files` says so
    try:
        contents = [json.loads(path.read_text()) for path in (ours, theirs)]
    except json.JSONDecodeError:
        return [f"{name}: is no JSON"]
    mine, other = (_timeless(content[part] if part else content) for content in contents)
    keys = sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key))
    return [f"{name}: {key} differs" for key in keys]


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in record.items() if key not in _HASHES and not _TIMES.search(key)
    }


def _records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """List records that are missing, doubled, in another order, or of other values."""
    places, expected = (
        [(record["kind"], record["step"]) for record in each] for each in (ours, theirs)
    )
    found = []
    counts, expected_counts = Counter(places), Counter(expected)
    for place in sorted({*counts, *expected_counts}):
        kind, step = place
        if counts[place] != expected_counts[place]:
            number = f"{counts[place]} times in place of {expected_counts[place]}"
            found.append(f"metrics.jsonl: {kind} of step {step} {number}")
    if found:
        return found
    if places != expected:
        return ["metrics.jsonl: another order"]
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = _timeless(mine), _timeless(other)
        for key in sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key)):
            found.append(f"metrics.jsonl: {key} of {mine['kind']} of step {mine['step']} differs")
    return found


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the steps and values that TensorBoard shows for each tag.

    TensorBoard drops the values that a restart has made obsolete.
    """
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def _events(run: Path, straight: Path) -> list[str]:
    if not (straight / "tensorboard").exists():
        return []
    ours, theirs = scalars(run), scalars(straight)
    found = [f"tensorboard: other tags: {tag}" for tag in sorted(ours.keys() ^ theirs.keys())]
    for tag in sorted(ours.keys() & theirs.keys()):
        steps, expected = ([step for step, _ in each[tag]] for each in (ours, theirs))
        if steps != expected:
            missing, doubled = (
                Counter(expected) - Counter(steps),
                Counter(steps) - Counter(expected),
            )
            what = [f"without {sorted(missing)}"] * bool(missing)
            what += [f"{sorted(doubled)} too much"] * bool(doubled)
            found.append(f"tensorboard: {tag} {' and '.join(what) or 'in another order'}")
        elif not _TIMES.search(tag) and ours[tag] != theirs[tag]:
            found.append(f"tensorboard: values of {tag} differ")
    return found


def _result_log(run: Path, straight: Path) -> list[str]:
    """Compare MindCV's log, without its last three columns, which are times."""
    if not (straight / "result.log").exists() or not (run / "result.log").exists():
        return []
    ours, theirs = (
        [line.split() for line in (each / "result.log").read_text().splitlines()]
        for each in (run, straight)
    )
    if len(ours) != len(theirs):
        return [f"result.log: {len(ours)} lines in place of {len(theirs)}"]
    rows = enumerate(zip(ours, theirs, strict=True))
    return [f"result.log: line {i} differs" for i, (a, b) in rows if _untimed(a) != _untimed(b)]


def _untimed(row: list[str]) -> list[str]:
    return row[:-3] if row and row[0].isdigit() else row


def _mindcv_checkpoints(run: Path, straight: Path) -> list[str]:
    found = []
    for theirs in sorted(straight.glob("*.ckpt")):
        ours = run / theirs.name
        if not ours.exists():
            continue  # `_files` says so
        try:
            tensors = read_ckpt(ours)
        except Exception as error:
            found.append(f"{theirs.name}: cannot be read ({type(error).__name__})")
            continue
        found += _unequal(theirs.name, tensors, read_ckpt(theirs))
    return found
