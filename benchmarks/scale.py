"""Sets that are too large for a list: order, start and resume; and tar files against a folder.

    python benchmarks/scale.py order [--entries 1300000000] [--ranks 1024] [--whole]
    python benchmarks/scale.py index FOLDER [--entries 1300000000]
    python benchmarks/scale.py tars FOLDER [--images 20000]

order: how long the first batch of an epoch takes, at its start and in its middle, and how much
memory. With --whole, every rank's whole epoch is computed, and each entry is counted.
index: how long it takes to open the index of so many synthetic entries and to read the names of a
batch. The index is a file with holes, which needs little room on the disk.
tars: images per second that one process reads and decodes in random order, from a folder and from
the tar files that `pack_data` makes of it, with a warm and a cold page cache.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_AT_ONCE = 2**16


def peak_mib() -> float:
    """Return the most memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def order(entries: int, ranks: int, whole: bool) -> None:
    """Time the order of a huge set, and count its entries over all ranks."""
    from convnextv2.data.permutation import Permutation
    from convnextv2.data.randomness import generator_for
    from convnextv2.data.sampler import EpochSampler

    before = peak_mib()
    started = time.perf_counter()
    sampler = EpochSampler(entries, 256, seed=0, rank=ranks // 2, world_size=ranks)
    first = next(iter(sampler))
    print(f"start: first batch of 256 after {time.perf_counter() - started:.3f} s")
    middle = len(sampler) // 2
    started = time.perf_counter()
    sampler.set_epoch(3, middle)
    batch = next(iter(sampler))
    print(f"resume at batch {middle:,} of {len(sampler):,}: {time.perf_counter() - started:.3f} s")
    print(f"memory for both: {peak_mib() - before:.1f} MiB")
    assert len(first) == len(batch) == 256
    permutation = Permutation(entries, generator_for(0, "order", 3))
    places = ranks // 2 + ranks * np.arange(middle * 256, middle * 256 + 256)
    assert permutation(places).tolist() == [position.index for position in batch]
    if whole:
        _count(permutation, entries, ranks)


def _count(permutation: Callable[..., np.ndarray], entries: int, ranks: int) -> None:
    """Compute the share of every rank, and check that each entry occurs in exactly one of them."""
    counts = np.zeros(entries, np.uint8)
    started = time.process_time()
    for rank in range(ranks):
        share = -(-(entries - rank) // ranks)
        for first in range(0, share, _AT_ONCE):
            places = rank + ranks * np.arange(first, min(first + _AT_ONCE, share))
            # An entry that came twice in one call would be counted once, and be missed in the sum.
            counts[permutation(places)] += 1
        if rank % 64 == 0:
            print(f"rank {rank}: {time.process_time() - started:.0f} s", flush=True)
    once = sum(int((counts[i : i + _AT_ONCE] == 1).sum()) for i in range(0, entries, _AT_ONCE))
    seconds = time.process_time() - started
    print(f"{once:,} of {entries:,} entries occur exactly once over {ranks:,} ranks")
    print(f"{seconds:.0f} s of the processor, {seconds / entries * 1e9:.0f} ns an entry")


def index(folder: Path, entries: int) -> None:
    """Open an index of so many entries."""
    from convnextv2.data.shards.files import LocalFiles
    from convnextv2.data.shards.images import ShardImages
    from convnextv2.data.shards.index import open_index

    per_shard, name = 10_000, b"n00000000/00000.jpg"
    path = folder / "synthetic.index"
    shards = [[f"s-{i:06d}.tar", 0, "", per_shard] for i in range(entries // per_shard)]
    entries = len(shards) * per_shard
    _write_holes(path, shards, entries, len(name))
    started, processor = time.perf_counter(), time.process_time()
    opened = open_index(path)
    source = ShardImages(opened, LocalFiles(opened.shards))
    names = [source[i] for i in range(0, len(source), len(source) // 256)]
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    size = path.stat().st_size
    print(f"index of {len(source):,} entries in {len(shards):,} shards ({size / 1e9:.1f} GB):")
    print(
        f"opened, and {len(names)} names read, in {seconds:.3f} s by the clock and "
        f"{processor:.3f} s of the processor; peak of the process {peak_mib():,.0f} MiB"
    )
    path.unlink()


def _write_holes(path: Path, shards: list[list[object]], entries: int, length: int) -> None:
    """Write an index whose arrays are holes in the file, which read as zeros."""
    kinds = {"offsets": "int64", "sizes": "uint32", "codes": "int32"}
    kinds |= {"name_ends": "int64", "names": "uint8"}
    arrays, position = {}, 0
    for name, kind in kinds.items():
        count = entries * length if name == "names" else entries
        arrays[name] = [kind, position, count]
        position += -(-count * np.dtype(kind).itemsize // 64) * 64
    header = {
        "arrays": arrays,
        "form": 1,
        "shards": shards,
        "words": [],
        "kinds": {},
        "names_sha256": "",
        "notes": [],
    }
    text = json.dumps(header).encode()
    text += b" " * (-(16 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(b"CNXARRY1" + len(text).to_bytes(8, "little") + text)
        file.truncate(16 + len(text) + position)


def tars(folder: Path, images: int) -> None:
    """Read images in random order from a folder and from tar files of it."""
    from PIL import Image

    import convnextv2
    from convnextv2.data.sources import find_sources
    from convnextv2.recipe.read import read_recipe

    root, packed = folder / f"photos-{images}", folder / f"tars-{images}"
    if not root.exists():
        rng = np.random.default_rng(0)
        for i in range(images):
            place = root / f"class{i % 20:02d}"
            place.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
            data = io.BytesIO()
            small.resize((256, 256), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
            (place / f"{i:06d}.jpg").write_bytes(data.getvalue())
    started = time.perf_counter()
    convnextv2.pack_data(root, packed, images_per_shard=2000)
    os.sync()
    print(f"packed in {time.perf_counter() - started:.1f} s")
    options = {"val_while_train": False}
    print("| source | cache | listing, s | read, images/s | read and decode, images/s |")
    print("|---|---|--:|--:|--:|", flush=True)
    chosen = np.random.default_rng(1).permutation(images)[: min(images, 5000)].tolist()
    for cold in (False, True):
        for name, place in (("folder", root), ("tars", packed)):
            figures = []
            for decodes in (False, True):
                if cold:
                    _forget(place)
                started = time.perf_counter()
                recipe = read_recipe({"data_dir": str(place)} | options)[0]
                source = find_sources(recipe, labelled=True)[0]
                listing = time.perf_counter() - started
                if not cold:
                    for i in chosen:
                        _read(source, i)
                started = time.perf_counter()
                for i in chosen:
                    source.pixels(i) if decodes else _read(source, i)
                figures.append(len(chosen) / (time.perf_counter() - started))
            state = "cold" if cold else "warm"
            print(f"| {name} | {state} | {listing:.2f} | {figures[0]:,.0f} | {figures[1]:,.0f} |")


def _read(source: object, i: int) -> bytes:
    from convnextv2.data.storage import read_file

    return read_file(source.names, i)


def _forget(place: Path) -> None:
    """Drop the pages of all files from the page cache."""
    for path in place.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    works = parser.add_subparsers(dest="work", required=True)
    one = works.add_parser("order")
    one.add_argument("--entries", type=int, default=1_300_000_000)
    one.add_argument("--ranks", type=int, default=1024)
    one.add_argument("--whole", action="store_true")
    one = works.add_parser("index")
    one.add_argument("folder", type=Path)
    one.add_argument("--entries", type=int, default=1_300_000_000)
    one = works.add_parser("tars")
    one.add_argument("folder", type=Path)
    one.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    if options.work == "order":
        order(options.entries, options.ranks, options.whole)
    elif options.work == "index":
        index(options.folder, options.entries)
    else:
        tars(options.folder, options.images)


if __name__ == "__main__":
    main()
