"""Time and memory to list large folders of images.

    python benchmarks/listing.py FOLDER [--classes 1000 21841] [--images 1300 641]

Makes the folders first, with generated names and hard links to a few empty files, which takes
minutes for millions of names. Each listing runs in a process of its own: labelled (a class for each
folder) and unlabelled, and both again from the listing that the first one kept. Figures: seconds of
the processor (user and system) and by the clock, and the memory that the list keeps and that the
process had at most beyond what it began with.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MAX_LINKS = 60_000  # of one file, in ext4


def make(root: Path, classes: int, images: int) -> None:
    """Make classes folders of so many images, unless they are there."""
    done = root / "done"
    if done.exists():
        return
    made = 0
    source = ""
    (root / "files").mkdir(parents=True, exist_ok=True)
    for number in range(classes):
        folder = f"{root}/data/n{number:08d}"
        os.makedirs(folder, exist_ok=True)
        for i in range(images):
            if made % _MAX_LINKS == 0:
                source = f"{root}/files/{made}"
                Path(source).touch()
            os.link(source, f"{folder}/n{number:08d}_{i * 37 % 100_000:05d}_{i}.JPEG")
            made += 1
    done.touch()


def measure(kind: str, folder: Path, *, again: bool = False) -> str:
    """List a folder in this process, and return a row of the table."""
    from convnextv2.data.folders import image_folder, unlabelled

    before, clock = _status("VmRSS"), time.perf_counter()
    processor = time.process_time()
    source = image_folder(folder) if kind == "labelled" else unlabelled(folder)
    processor, clock = time.process_time() - processor, time.perf_counter() - clock
    kept, peak = _status("VmRSS") - before, _status("VmHWM") - before
    classes = len(source.class_names) or "-"
    figures = f"{processor:.1f} | {clock:.1f} | {kept:,.0f} | {peak:,.0f}"
    kind += " again" if again else ""
    return f"| {kind} | {len(source):,} | {classes} | {figures} |"


def _status(field: str) -> float:
    """Read a figure of this process, in MiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))


def main() -> None:
    """Make, list and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 21_841])
    parser.add_argument("--images", type=int, nargs="+", default=[1300, 641])
    parser.add_argument("--measure", choices=["labelled", "unlabelled"], help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure, options.folder, again=options.again), flush=True)
        return
    print("| listing | images | classes | processor, s | clock, s | kept, MiB | peak, MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for classes, images in zip(options.classes, options.images, strict=True):
        root = options.folder / f"{classes}x{images}"
        make(root, classes, images)
        with tempfile.TemporaryDirectory() as cache:
            os.chmod(cache, 0o700)
            for kind in ("labelled", "unlabelled"):
                command = [sys.executable, __file__, str(root / "data"), "--measure", kind]
                for more in ([], ["--again"]):
                    environment = os.environ | {"CONVNEXTV2_CACHE": cache}
                    subprocess.run([*command, *more], check=True, env=environment)


if __name__ == "__main__":
    main()
