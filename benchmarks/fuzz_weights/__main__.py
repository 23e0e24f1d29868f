"""Open thousands of damaged and hostile checkpoints; docs/how-to/weights.md states what came out.

    python benchmarks/fuzz_weights [--count 5000] [--seed 0] [--kind WORD] [--shard 1/2]

Each kind of file runs in a process of its own whose memory is limited. These are the mutations:

- in every kind: flipped bits, a cut, bytes overwritten by a huge length, and a piece that is
  repeated or taken out
- in JSON, in a file of its own or in the head of a safetensors file: a value of another type
- in archives: compressed bombs
- in pickles: payloads that would leave a file behind

A checksum is often made to fit what was mutated, and an archive is often whole around a mutated
pickle. Two kinds aim at memory: pickles that call what allocates (`tests/weights/bombs.py`), with
opcodes put in, taken out and repeated; and .ckpt files with masses of entries, fields and sides.

What can be opened is inspected and built. A file may be opened or refused by an error of ours. Any
other exception, a crash, a file left behind by a payload, or memory above the limit is a failure.

For each kind it prints how many files were opened and refused, and the figures of the worst one:
the most memory that opening it took beyond twice its size (MiB, by VmHWM), and the time (s, of this
process).
"""

import argparse
import io
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import torch
from masses import entries_bomb, pickle_bomb
from mutations import bomb, mutate, mutate_head, mutate_json, mutate_pickle
from seeds import write_seeds

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.verbs.inspect import inspect
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore

HEADROOM = 1 << 30
"""Bytes of address space that a process may take beyond its imports.

The files have about 40 KB, or up to 2 MB if they are to cost memory.
"""


def memory(kind: str) -> int:
    """Return the memory of this process in bytes: VmRSS (now) or VmHWM (at most)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{kind}:"))


def damaged(path: Path, content: bytes, scratch: Path, rng: random.Random) -> bytes:
    """Damage the content of a file in one of the ways that suit it.

    Args:
        path: The file.
        content: Its content.
        scratch: A file to write.
        rng: The random numbers.
    """
    is_bomb = content[:2] == b"PK" and rng.random() < 0.1
    if path.name == "opcodes.pt":
        return pickle_bomb(rng, scratch)
    if path.name == "entries.ckpt":
        return entries_bomb(rng)
    if is_bomb:
        return bomb(content, rng)
    if content[:2] == b"PK" and rng.random() < 0.5:
        return mutate_pickle(content, rng)
    if "payload" in path.name and rng.random() < 0.1:
        return content
    if path.suffix == ".json" and rng.random() < 0.7:
        return mutate_json(content, rng)
    if path.suffix == ".safetensors" and rng.random() < 0.5:
        return mutate_head(content, rng)
    mutated = mutate(content, rng)
    if path.name == "checked.ckpt" and rng.random() < 0.8:
        mutated = mutate(content[:-17], rng)
        mutated += b"crc_num" + zlib.crc32(mutated).to_bytes(10, "big")
    return mutated


def fuzz(seed_path: Path, count: int, seed: int, mark: Path) -> dict[str, object]:
    """Open damaged copies of one file.

    Args:
        seed_path: The good file or folder.
        count: The number of copies.
        seed: The seed of the damage.
        mark: The file that payloads would leave behind.

    Returns:
        How many were opened and refused, the memory and the time. An exception of the code under
        test is passed on.
    """
    rng = random.Random(f"{seed}{seed_path.name}")
    folder = Path(tempfile.mkdtemp(dir=seed_path.parent))
    is_folder = seed_path.is_dir()
    target = folder / seed_path.name
    files = sorted(seed_path.iterdir()) if is_folder else [seed_path]
    contents = {path: path.read_bytes() for path in files}
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM, taken + HEADROOM))
    most, slowest = 0, 0.0
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        if is_folder:
            shutil.copytree(seed_path, target, dirs_exist_ok=True)
        chosen = rng.choice(files)
        mutated = damaged(chosen, contents[chosen], target, rng)
        (target / chosen.name if is_folder else target).write_bytes(mutated)
        size = sum(path.stat().st_size for path in target.iterdir()) if is_folder else len(mutated)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        resident, start = memory("VmRSS"), time.process_time()
        try:
            restore(open_weights(target))
            with redirect_stdout(io.StringIO()):
                inspect(target)
            outcomes["opened"] += 1
        except ConvNeXtV2Error as error:
            assert "\n" not in str(error), f"more than one line: {error}"
            outcomes["refused"] += 1
        slowest = max(slowest, time.process_time() - start)
        most = max(most, memory("VmHWM") - resident - 2 * size)
    assert not mark.exists(), "a payload was run"
    shutil.rmtree(folder)
    return {
        **outcomes,
        "mib_beyond_twice_the_size": round(most / 2**20),
        "slowest_s": round(slowest, 2),
    }


def main() -> None:
    """Fuzz each kind in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="only kinds with this in their name")
    parser.add_argument(
        "--shard", default="1/1", help="I/N: only every N-th kind, beginning with the I-th"
    )
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # how this script calls itself
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        mark = arguments.one.parent / "left-behind"
        print(json.dumps(fuzz(arguments.one, arguments.count, arguments.seed, mark)))
        return
    failed = False
    with tempfile.TemporaryDirectory() as name:
        mark = Path(name) / "left-behind"
        seeds = write_seeds(Path(name), mark)
        first, step = map(int, arguments.shard.split("/"))
        for kind, path in [item for item in seeds.items() if arguments.kind in item[0]][
            first - 1 :: step
        ]:
            one = ("--one", str(path), "--count", str(arguments.count))
            command = [sys.executable, __file__, *one, "--seed", str(arguments.seed)]
            done = subprocess.run(command, capture_output=True, text=True)
            failed |= done.returncode != 0
            failure = f"FAILED ({done.returncode}): {done.stderr.strip()[-1500:]}"
            print(f"{kind:<24}{done.stdout.strip() or failure}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
