"""Which damaged images are read, compared with Pillow, and what reading them costs.

    python benchmarks/mutate_images.py OUT [--count 5000] [--format PNG] [--photographs FOLDER]

Makes mutants of generated images of seven formats (and of photographs, if a folder is given): bits
flipped, files cut, bytes and chunks inserted, removed, doubled and exchanged, numbers in headers
changed. Each is decoded by the package and by Pillow as it is, in a process of bounded memory that
is ended when a file takes very long. Times are of the processor, so that a busy machine changes
nothing. Writes a line of JSON for each mutant to OUT/FORMAT.jsonl,
and prints a table of all formats that are there. What OUT has already is not done again. The same
seed gives the same mutants.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import resource
import select
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP")
MAX_PIXELS = 64_000_000
TIME_LIMIT_S = 60.0  # by the clock, of a process that shares the machine
MEMORY_LIMIT = 4 << 30
SHARES = 2  # processes at work
Mutation = Callable[[bytearray, np.random.Generator], bytes]


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with some texture."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 8, (height, width, 3))
    waves = np.stack([np.sin(x / 9 + seed), np.cos(y / 7), np.sin((x + y) / 13)], -1)
    return Image.fromarray((128 + 100 * waves + noise).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image with Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    """Make metadata that say that an image lies on its side."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    return exif


def originals(kind: str, folder: Path | None) -> list[bytes]:
    """Files of a format with all that it is usually used with."""
    one, two = photograph(96, 64, 0), photograph(61, 83, 1)
    clear = one.convert("RGBA")
    clear.putalpha(photograph(96, 64, 2).convert("L"))
    made: dict[str, Callable[[], list[bytes]]] = {
        "JPEG": lambda: [
            encode(one, kind, quality=90),
            encode(two, kind, progressive=True, exif=turned()),
            encode(one.convert("L"), kind),
            encode(one, kind, subsampling=2, restart_marker_blocks=3, comment=b"made"),
            encode(two.convert("CMYK"), kind),
        ],
        "PNG": lambda: [
            encode(one, kind, exif=turned()),
            encode(clear, kind),
            encode(two.quantize(60), kind, transparency=3),
            encode(Image.fromarray(np.arange(6144, dtype=np.uint16).reshape(64, 96) * 9), kind),
            encode(one, kind, save_all=True, append_images=[two.resize(one.size)]),
            encode(two.convert("1"), kind, icc_profile=b"\1" * 300),
        ],
        "WEBP": lambda: [
            encode(one, kind, exif=turned()),
            encode(clear, kind, lossless=True),
            encode(clear, kind),
            encode(two, kind, save_all=True, append_images=[two.rotate(90)]),
        ],
        "TIFF": lambda: [
            encode(one, kind),
            encode(two, kind, compression="tiff_lzw", exif=turned()),
            encode(one, kind, compression="tiff_adobe_deflate", tile=(32, 32)),
            encode(one, kind, compression="jpeg"),
            encode(two.convert("L").convert("F"), kind),
            encode(two.convert("1"), kind, compression="group4"),
            encode(clear, kind, compression="packbits"),
        ],
        "GIF": lambda: [
            encode(one, kind),
            encode(two, kind, save_all=True, append_images=[two.rotate(90)], loop=0),
            encode(clear, kind, transparency=0, comment=b"made"),
            encode(two.convert("L"), kind, interlace=1),
        ],
        "AVIF": lambda: [
            encode(one, kind, speed=9, exif=turned()),
            encode(clear, kind, speed=9),
            encode(two, kind, speed=9, save_all=True, append_images=[two.rotate(90)]),
        ],
        "BMP": lambda: [
            encode(one, kind),
            encode(two.convert("P"), kind),
            encode(two.convert("1"), kind),
            encode(clear, kind),
            run_lengths(two.convert("P")),
        ],
    }
    found = sorted(folder.rglob("*")) if folder else []
    shown = [Image.open(path).convert("RGB") for path in found if path.suffix in (".jpg", ".jpeg")]
    return made[kind]() + [encode(image.reduce(2), kind) for image in shown[:4]]


def run_lengths(image: Image.Image) -> bytes:
    """A BMP of 8 bits, run-length coded, each run one pixel long."""
    plain = bytearray(encode(image, "BMP"))
    rows = np.asarray(image)[::-1]
    coded = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in rows)
    (begin,) = struct.unpack_from("<I", plain, 10)
    struct.pack_into("<I", plain, 30, 1)
    struct.pack_into("<I", plain, 34, len(coded) + 2)
    return bytes(plain[:begin]) + coded + b"\0\1"


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Where the chunks, segments or boxes of a file begin and end."""
    found: list[tuple[int, int]] = []
    at = 0
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            found.append((at, end))
            at = end
    elif data.startswith(b"RIFF"):
        at = 12
        while at + 8 <= len(data):
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            found.append((at, at + 8 + length + length % 2))
            at = found[-1][1]
    elif data[4:8] == b"ftyp":
        while at + 8 <= len(data):
            end = at + max(8, int.from_bytes(data[at : at + 4], "big"))
            found.append((at, end))
            at = end
    elif data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] == 0xDA:
                following = re.compile(rb"\xff[^\x00\xd0-\xd7]").search(data, end)
                end = following.start() if following else len(data)
            found.append((at, end))
            at = end
    elif data[:2] in (b"II", b"MM"):
        order = "<" if data[:1] == b"I" else ">"
        (at,) = struct.unpack_from(order + "I", data, 4)
        (lines,) = struct.unpack_from(order + "H", data, at)
        found = [(at + 2 + 12 * line, at + 14 + 12 * line) for line in range(lines)]
    return found or [(begin, min(begin + 16, len(data))) for begin in range(0, len(data), 16)]


def flip(data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn over one to eight bits anywhere."""
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def flip_header(data: bytearray, rng: np.random.Generator) -> bytes:
    """Turn over bits of the first 200 bytes."""
    for at in rng.integers(0, min(200, len(data)), rng.integers(1, 5)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    """Keep the beginning."""
    return bytes(data[: rng.integers(1, len(data))])


def cut_end(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave out the last few bytes."""
    return bytes(data[: -int(rng.integers(1, 16))])


def insert(data: bytearray, rng: np.random.Generator) -> bytes:
    """Put some bytes in between."""
    at = int(rng.integers(0, len(data) + 1))
    return bytes(data[:at]) + rng.bytes(int(rng.integers(1, 40))) + bytes(data[at:])


def remove(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave some bytes out."""
    at = int(rng.integers(0, len(data)))
    return bytes(data[:at] + data[at + int(rng.integers(1, 40)) :])


def remove_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Leave a chunk out."""
    begin, end = chosen(chunks(bytes(data)), rng)
    return bytes(data[:begin] + data[end:])


def double_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Put a chunk in twice, the copy anywhere between others."""
    found = chunks(bytes(data))
    (begin, end), (at, _) = chosen(found, rng), chosen(found, rng)
    return bytes(data[:at] + data[begin:end] + data[at:])


def exchange_chunks(data: bytearray, rng: np.random.Generator) -> bytes:
    """Let two chunks change places."""
    found = chunks(bytes(data))
    (a, b), (c, d) = sorted((chosen(found, rng), chosen(found, rng)))
    return bytes(data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]) if b <= c else bytes(data)


def edit_chunk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Change bytes of a chunk's beginning; the check sum of a PNG chunk is made right again."""
    begin, end = chosen(chunks(bytes(data)), rng)
    end = min(end, len(data))
    for at in rng.integers(begin, min(begin + 40, end), rng.integers(1, 4)):
        data[at] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    if data.startswith(b"\x89PNG") and end - begin >= 12:
        data[end - 4 : end] = zlib.crc32(data[begin + 4 : end - 4]).to_bytes(4, "big")
    return bytes(data)


def edit_number(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace two or four bytes of the first 200 by a number at an edge."""
    size = int(rng.choice([2, 4]))
    number = int(rng.choice([0, 1, 2, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**32 - 1]))
    at = int(rng.integers(0, max(1, min(200, len(data)) - size)))
    order = "little" if rng.random() < 0.5 else "big"
    data[at : at + size] = (number % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(data)


def chosen(found: list[tuple[int, int]], rng: np.random.Generator) -> tuple[int, int]:
    """Choose one of the places."""
    return found[int(rng.integers(len(found)))]


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    flip_header,
    cut,
    cut_end,
    insert,
    remove,
    remove_chunk,
    double_chunk,
    exchange_chunks,
    edit_chunk,
    edit_number,
)


def mutants(
    kind: str, begin: int, end: int, seed: int, folder: Path | None
) -> Iterator[tuple[int, str, bytes]]:
    """Number, name of the mutation, file."""
    sources = originals(kind, folder)
    for number in range(begin, end):
        rng = np.random.default_rng([seed, FORMATS.index(kind), number])
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        source = sources[int(rng.integers(len(sources)))]
        yield number, mutation.__name__, mutation(bytearray(source), rng)


def memory(key: str) -> int:
    """Read VmRSS or VmHWM (the most since the last reset) of this process, in bytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def measured(decode: Callable[[bytes], object], data: bytes) -> dict[str, object]:
    """Decode one file, and return a digest of its pixels or the error, seconds and bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    try:
        result: dict[str, object] = {"pixels": decode(data)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    result["seconds"] = time.process_time() - began
    result["bytes"] = memory("VmHWM") - before
    return result


def work(kind: str, begin: int, end: int, seed: int, folder: Path | None) -> None:
    """Decode mutants both ways; print a line before and after each."""
    import warnings

    import torch

    from convnextv2.data.decode import decode, from_pillow

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))

    def digest(pixels: torch.Tensor) -> str:
        shown = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        return f"{shown.shape} {hashlib.sha256(shown).hexdigest()}"

    def ours(data: bytes) -> str:
        return digest(decode(data, name="x", max_pixels=MAX_PIXELS))

    def theirs(data: bytes) -> str:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("too large")
        return digest(from_pillow(image, 3))

    for number, mutation, data in mutants(kind, begin, end, seed, folder):
        record: dict[str, object] = {"number": number, "mutation": mutation}
        for name, decoder in (("ours", ours), ("theirs", theirs)):
            print(json.dumps({"number": number, "mutation": mutation, "begins": name}), flush=True)
            record[name] = measured(decoder, data)
        print(json.dumps(record), flush=True)


def wait(last: dict[str, object]) -> float:
    """Return how many seconds to wait for the next record."""
    return 60 if last["begins"] == "start" else TIME_LIMIT_S


def watched(command: list[str], kind: str, begin: int, end: int) -> Iterator[dict[str, object]]:
    """The records of a part of the mutants; a process that hangs or dies is started anew."""
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
    """Decode all mutants of a format, in parallel; write what came of them."""
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


def verdict(record: dict) -> str:
    """Say who read a file: both alike, both otherwise, one of them, or neither."""
    ours, theirs = record["ours"], record["theirs"]
    if "pixels" in ours and "pixels" in theirs:
        return "same" if ours["pixels"] == theirs["pixels"] else "other"
    if "pixels" in ours:
        return "ours"
    return "theirs" if "pixels" in theirs else "neither"


def table(out: Path) -> str:
    """All formats that are there, as Markdown."""
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
    """How often which reason stands against pixels."""
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
