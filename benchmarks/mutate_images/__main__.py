"""Compare the reading of damaged images with Pillow: which ones are read, and at what cost.

    python benchmarks/mutate_images OUT [--count 5000] [--format PNG] [--photographs FOLDER]

Makes mutants of generated images of seven formats (and of photographs, if a folder is given): bits
flipped, files cut, bytes and chunks inserted, removed, doubled and exchanged, numbers in headers
changed. Each is decoded by the package and by Pillow as it is, in a process of bounded memory that
is ended when a file takes very long. Times are CPU times, so they do not depend on other work on
the machine. OUT/FORMAT.jsonl gets a line of JSON for each mutant, and a table of all formats in OUT
is printed. Mutants that are in OUT already are not decoded again. The same seed gives the same
mutants.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import mutants
from originals import FORMATS
from report import disagreements, table

START_LIMIT_S = 60.0
"""The longest time that a process may take to start, in seconds."""
TIME_LIMIT_S = 60.0
"""The longest wall-clock time for a file, in seconds. The processes share the machine."""
SHARES = 2
"""The number of processes that decode at the same time."""


def wait(last: dict[str, object]) -> float:
    """Return how many seconds to wait for the next record."""
    return START_LIMIT_S if last["begins"] == "start" else TIME_LIMIT_S


def watched(command: list[str], kind: str, begin: int, end: int) -> Iterator[dict[str, object]]:
    """Yield the records of a part of the mutants. A process that hangs or dies is started anew."""
    at = begin
    while at < end:
        process = subprocess.Popen(
            [*command, "--work", kind, str(at), str(end)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        last: dict[str, object] = {"number": at, "begins": "start"}
        while select.select([process.stdout], [], [], wait(last))[0]:
            line = process.stdout.readline()
            if not line:
                break
            last = json.loads(line)
            if "begins" not in last:
                yield last
                at = int(str(last["number"])) + 1
                last = {"number": at, "begins": "next"}
        process.kill()
        code = process.wait()
        if at < end and last["begins"] in ("ours", "theirs"):
            failure = {"error": f"ended, code {code}", "seconds": TIME_LIMIT_S, "bytes": 0}
            missing = {"error": "not tried", "seconds": 0.0, "bytes": 0}
            both = {"ours": missing, "theirs": missing, str(last["begins"]): failure}
            yield {"number": at, "mutation": last["mutation"], **both}
            at += 1
        elif at < end and last["begins"] == "start":
            raise RuntimeError(f"a process for {kind} did not start, code {code}")


def run(kind: str, out: Path, count: int, command: list[str]) -> None:
    """Decode all mutants of a format in parallel, and write the results."""
    edges = [count * share // SHARES for share in range(SHARES + 1)]
    with ThreadPoolExecutor(SHARES) as pool:
        parts = pool.map(
            lambda share: list(watched(command, kind, edges[share], edges[share + 1])),
            range(SHARES),
        )
    lines = [json.dumps(record) for part in parts for record in part]
    partial = out / f"{kind}.partial"
    partial.write_text("\n".join(lines) + "\n")
    partial.rename(out / f"{kind}.jsonl")


def main() -> None:
    """Mutate, read, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=int, help="only write this mutant of --format into OUT")
    parser.add_argument("--work", nargs=3, metavar=("FORMAT", "FROM", "TO"), help="internal")
    args = parser.parse_args()
    if args.work:
        from decoding import work  # its imports are needed by nothing else

        kind, begin, end = args.work
        work(kind, int(begin), int(end), args.seed, args.photographs)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.save is not None:
        number, _, data = next(
            mutants(args.format, args.save, args.save + 1, args.seed, args.photographs)
        )
        (args.out / f"{args.format}-{number}").write_bytes(data)
        return
    command = [sys.executable, os.path.abspath(__file__), str(args.out), "--seed", str(args.seed)]
    command += ["--photographs", str(args.photographs)] if args.photographs else []
    for kind in [args.format] if args.format else FORMATS:
        if not (args.out / f"{kind}.jsonl").exists():
            run(kind, args.out, args.count, command)
    print(table(args.out))
    print(disagreements(args.out), file=sys.stderr)


if __name__ == "__main__":
    main()
