"""Compiles the C++ kernels for every level of instructions, for wheels that carry them.

    python scripts/bundle_kernels.py [FOLDER] [--machine aarch64] [--compiler g++]

FOLDER (build/kernels) gets a library for each level and `libraries.json`, which says what they are.
`CONVNEXTV2_BUNDLE=FOLDER` makes the build of a wheel take them along (`hatch_build.py`); `make
wheels` does both. Another machine than this one needs a cross compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from convnextv2.kernels.sources import (  # noqa: E402
    DESCRIPTION,
    FLAGS,
    LEVELS,
    SOURCES,
    file_name,
    sources_sha256,
)


def main() -> None:
    """Compile and describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "kernels")
    parser.add_argument("--machine", choices=LEVELS, default=platform.machine())
    parser.add_argument("--compiler", default="g++")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(asked.compiler)
    version = subprocess.run(
        [*compiler, "--version"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[0]
    levels = [level.name for level in LEVELS[asked.machine]]
    with ThreadPoolExecutor() as pool:
        libraries = list(pool.map(lambda level: build(compiler, level, asked.folder), levels))
    description = {
        "machine": asked.machine,
        "sources_sha256": sources_sha256(),
        "compiler": version,
        "libraries": dict(zip(levels, libraries, strict=True)),
    }
    (asked.folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def build(compiler: list[str], level: str, folder: Path) -> str:
    """Compile the library for one level, and return its SHA-256."""
    path, objects = folder / file_name(level), []
    for source in SOURCES:
        objects.append(folder / f"{source.stem}-{level}.o")
        command = [*compiler, *FLAGS, f"-march={level}", "-c", str(source), "-o", str(objects[-1])]
        subprocess.run([part for part in command if part != "-shared"], check=True)
    # Without -fopenmp no runtime is linked. Its functions stay undefined: they are those of the one
    # that PyTorch has loaded, whatever its file is called. A second one would spin against it.
    link = ["-shared", "-Wl,--as-needed", "-Wl,--strip-all", *map(str, objects), "-o", str(path)]
    subprocess.run([*compiler, *link], check=True)
    for each in objects:
        each.unlink()
    print(f"{path}: {path.stat().st_size:,} bytes", flush=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
