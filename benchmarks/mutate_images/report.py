"""Writes what came of the mutants as a table, and lists where both readers disagree."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from originals import FORMATS


def verdict(record: dict) -> str:
    """Say who read a file: both alike, both otherwise, one of them, or neither."""
    ours, theirs = record["ours"], record["theirs"]
    if "pixels" in ours and "pixels" in theirs:
        return "same" if ours["pixels"] == theirs["pixels"] else "other"
    if "pixels" in ours:
        return "ours"
    return "theirs" if "pixels" in theirs else "neither"


def table(out: Path) -> str:
    """Write a table in Markdown of all formats that are there."""
    lines = [
        "| format | mutants | both read, same pixels | both read, other pixels | neither | "
        "ours only | Pillow only | longest, s (Pillow) | most memory, MiB (Pillow) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in FORMATS:
        path = out / f"{kind}.jsonl"
        if not path.exists():
            continue
        records = [json.loads(line) for line in path.read_text().splitlines()]
        counts = Counter(map(verdict, records))
        worst = [
            max(record[name][key] for record in records)
            for key in ("seconds", "bytes")
            for name in ("ours", "theirs")
        ]
        lines.append(
            f"| {kind} | {len(records)} | {counts['same']} | {counts['other']} | "
            f"{counts['neither']} | {counts['ours']} | {counts['theirs']} | "
            f"{worst[0]:.2f} ({worst[1]:.2f}) | {worst[2] / 2**20:.0f} ({worst[3] / 2**20:.0f}) |"
        )
    return "\n".join(lines)


def disagreements(out: Path) -> str:
    """List the reasons for which only one of both read a file, and how often each occurred."""
    lines = []
    for path in sorted(out.glob("*.jsonl")):
        reasons: Counter[str] = Counter()
        example: dict[str, int] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            kind = verdict(record)
            if kind in ("same", "neither"):
                continue
            error = record["theirs" if kind == "ours" else "ours"].get("error", "")
            reason = f"{kind}: {re.sub(r'0x[0-9a-f]+|[0-9]+', '#', error)[:110]}"
            reasons[reason] += 1
            example.setdefault(reason, record["number"])
        lines += [
            f"{path.stem} {count} x {reason} (such as {example[reason]})"
            for reason, count in reasons.most_common()
        ]
    return "\n".join(lines)
