"""Open thousands of damaged and hostile checkpoints; docs/how-to/weights.md states what came out.

    python benchmarks/fuzz_weights.py [--count 5000] [--seed 0] [--kind WORD] [--shard 1/2]

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
import pickle
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.verbs.inspect import inspect
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.description import Description
from convnextv2.weights.mindspore import read_ckpt
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import read_tensors, save_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "weights"))
from bombs import as_archive, as_old, large_bombs, small_bombs  # noqa: E402

HEADROOM = 1 << 30
"""Bytes of address space that a process may take beyond its imports.

The files have about 40 KB, or up to 2 MB if they are to cost memory.
"""

OPCODES = (
    b"NKJMG\x88\x89\x8a\x8bX\x8c\x8d\x8eBCUT)(]}tlde012\x85\x86\x87\x8f\x90\x91"
    b"asuhjqr\x94cR\x81\x92bQ\x80\x93\x95\x96oi\x82."
)


class Payload:
    """Leaves a file behind where someone unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def write_seeds(folder: Path, mark: Path) -> dict[str, Path]:
    """One good file (or Hub folder) of each kind."""
    torch.manual_seed(0)
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=5)
    preprocessing = {
        "image_size": [64, 64],
        "channels": 3,
        "eval_preset": "timm",
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    preprocessing |= {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    names = ["a", "b", "c", "d", "e"]
    description = Description(
        "classifier", "custom", model.arguments, class_names=names, preprocessing=preprocessing
    )
    save_weights(folder / "ours", model.state_dict(), description)
    weights = open_weights(folder / "ours" / "model.safetensors")
    seeds = {"convnextv2 safetensors": folder / "ours" / "model.safetensors"}
    for name, target, out in (
        ("official .pt", "official", "official.pt"),
        ("timm safetensors", "timm", "timm.safetensors"),
        ("timm .pth", "timm", "timm.pth"),
        ("timm folder", "timm", "timm"),
        ("official folder", "official", "official"),
        ("transformers folder", "transformers", "hf"),
        ("mmpretrain .pth", "mmpretrain", "mm.pth"),
        ("MindCV .ckpt", "mindcv", "mindcv.ckpt"),
        ("MindSpore safetensors", "mindcv", "ms.safetensors"),
    ):
        convert_weights(weights, target, folder / out, allow_drift=True)
        seeds[name] = folder / out
    state = torch.load(folder / "official.pt", weights_only=True)["model"]
    torch.save({"model": state}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    pretrained = FCMAE(ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=None), decoder_dim=8)
    arguments = argparse.Namespace(lr=1.0, model="convnextv2_atto")
    torch.save(
        {"model": pretrained.state_dict(), "args": arguments, "epoch": 3}, folder / "training.pth"
    )
    sparse = {
        name: as_sparse(name, tensor) for name, tensor in pretrained.encoder.state_dict().items()
    }
    torch.save({"model": dict(sparse.values())}, folder / "sparse.pth")
    content = (folder / "mindcv.ckpt").read_bytes()
    checksum = b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    (folder / "checked.ckpt").write_bytes(content + checksum)
    assert read_ckpt(folder / "checked.ckpt")
    shutil.copytree(folder / "hf", folder / "shards")
    (folder / "shards" / "model.safetensors").unlink()
    tensors, _ = read_tensors(folder / "hf" / "model.safetensors")
    parts = {f"model-{i}.safetensors": dict(list(tensors.items())[i::2]) for i in range(2)}
    for name, part in parts.items():
        save_file(part, folder / "shards" / name)
    index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    seeds |= {
        "sparse kernels .pth": folder / "sparse.pth",
        "MindCV .ckpt, checksum": folder / "checked.ckpt",
    }
    seeds |= {"transformers shards": folder / "shards"}
    payload = io.BytesIO()
    torch.save({"model": state, "args": Payload(mark)}, payload)
    (folder / "payload.pth").write_bytes(payload.getvalue())
    (folder / "payload.pkl").write_bytes(pickle.dumps({"model": Payload(mark)}))
    seeds |= {
        "old PyTorch .pth": folder / "legacy.pth",
        "FCMAE training .pth": folder / "training.pth",
    }
    seeds |= {
        "payload in a zip": folder / "payload.pth",
        "payload in a pickle": folder / "payload.pkl",
    }
    torch.save(
        {"state_dict": state, "metric": np.float64(0.5), "where": Path("x")}, folder / "objects.pth"
    )
    torch.save(
        {f"model.{name}": tensor for name, tensor in state.items()}
        | {"loss.weight": torch.ones(5)},
        folder / "lit.pth",
    )
    seeds |= {
        "objects beside .pth": folder / "objects.pth",
        "extras beside .pth": folder / "lit.pth",
    }
    for name in ("opcodes.pt", "entries.ckpt"):
        (folder / name).write_bytes(b"x")  # each file of these kinds is made anew
    return {
        "pickles that allocate": folder / "opcodes.pt",
        ".ckpt of many entries": folder / "entries.ckpt",
    } | seeds


def as_sparse(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Convert a tensor of the encoder to the form in which the official pre-training saves it.

    Its values do not matter here.
    """
    inside, down = (
        name.startswith("stages."),
        name.startswith("downsample_layers.") and not name.startswith("downsample_layers.0."),
    )
    if name.endswith("dwconv.weight") or (down and name.endswith(".1.weight")):
        o, i, k, _ = tensor.shape
        name = name.removesuffix("weight") + "kernel"
        tensor = torch.zeros((k * k, o) if i == 1 else (k * k, i, o))
    elif ".pwconv" in name:
        name = name.replace(".weight", ".linear.weight").replace(".bias", ".linear.bias")
    elif (inside and ".norm." in name) or (down and ".0." in name):
        name = name.replace(".weight", ".ln.weight").replace(".bias", ".ln.bias")
    return f"encoder.{name}", tensor


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    5,
    1e308,
    10**40,
    float("nan"),
    "",
    "x",
    "x\ny",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace one value in JSON by one of another type, or take it out.

    It may lie at any depth, also in text that is itself JSON.
    """
    content = json.loads(data)
    at: Any = content
    while True:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if isinstance(at[key], str) and at[key][:1] == "{":
            at[key] = mutate_json(at[key].encode(), rng).decode()
            break
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.2:
            if rng.random() < 0.2:
                del at[key]
            else:
                at[key] = rng.choice(ODD)
            break
        at = at[key]
    return json.dumps(content).encode()


def mutate_head(data: bytes, rng: random.Random) -> bytes:
    """Mutate the JSON of a safetensors file.

    Most often this is in the metadata, which hold our description.
    """
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    if "__metadata__" in head and rng.random() < 0.9:
        head["__metadata__"] = json.loads(
            mutate_json(json.dumps(head["__metadata__"]).encode(), rng)
        )
        mutated = json.dumps(head).encode()
    else:
        mutated = mutate_json(json.dumps(head).encode(), rng)
    return len(mutated).to_bytes(8, "little") + mutated + data[8 + length :]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of the mutations of bytes; metadata at either end are hit as often as the rest."""
    content = bytearray(data)

    def place() -> int:
        return rng.choice(
            (
                rng.randrange(len(content)),
                rng.randrange(min(2000, len(content))),
                -1 - rng.randrange(min(2000, len(data))),
            )
        )

    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, 20)):
            content[place()] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.randrange(len(content)) :]
    elif kind == 2:
        at = place() % len(content)
        content[at : at + 8] = rng.choice(
            (b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0", b"\xff\xff\xff\xff\x0f\0\0\0")
        )
    elif kind == 3:
        at, length = place() % len(content), rng.randint(1, 4000)
        content[at:at] = content[at : at + length]
    elif kind == 4:
        at = place() % len(content)
        del content[at : at + rng.randint(1, 4000)]
    else:
        for _ in range(rng.randint(1, 50)):
            content[place()] = rng.randrange(256)
    return bytes(content)


def bomb(data: bytes, rng: random.Random) -> bytes:
    """Make an archive claim that one entry unpacks to 4 GiB, or compress all its entries."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        chosen = rng.choice(source.namelist())
        for entry in source.infolist():
            content = (
                bytes(64 << 20)
                if entry.filename == chosen and rng.random() < 0.2
                else source.read(entry)
            )
            target.writestr(
                entry.filename,
                content,
                compress_type=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
            )
    content = bytearray(out.getvalue())
    if rng.random() < 0.5:  # sizes in the directory that are not true
        at = content.rfind(b"PK\x01\x02")
        content[at + 20 : at + 28] = b"\xff\xff\xff\xff\xff\xff\xff\xff"
    return bytes(content)


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """The same archive, whole, around a pickle of which a few bytes or opcodes are others."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                pickled = bytearray(content)
                for _ in range(rng.choice((1, 1, 2, 5))):
                    pickled[rng.randrange(len(pickled))] = rng.choice(
                        (rng.choice(OPCODES), rng.randrange(256))
                    )
                content = bytes(pickled)
            target.writestr(entry.filename, content)
    return out.getvalue()


def pickle_bomb(rng: random.Random, scratch: Path) -> bytes:
    """Make an archive or old checkpoint whose pickle calls what allocates, with mutated opcodes.

    Args:
        rng: The random numbers.
        scratch: A file to write.
    """
    small = small_bombs()
    if rng.random() < 0.95:
        pickled = bytearray(rng.choice(list(small.values())))
    else:
        pickled = bytearray(
            rng.choice(list(large_bombs(rng.choice((10_000, 100_000, 1_000_000))).values()))
        )
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(pickled) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            pickled[at:at] = bytes(rng.choices(OPCODES, k=rng.randint(1, 8)))
        elif kind == 1:
            del pickled[at : at + rng.randint(1, 8)]
        elif kind == 2:
            pickled[at:at] = rng.choice(list(small.values()))
        else:
            pickled[at:at] = pickled[at : at + rng.randint(1, 40)] * rng.choice((1, 2, 10, 1000))
    return (as_old if rng.random() < 0.3 else as_archive)(bytes(pickled), scratch).read_bytes()


def varint(value: int) -> bytes:
    """As protobuf writes a number."""
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    """As protobuf writes bytes."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def entry(tag: bytes, rng: random.Random) -> bytes:
    """An entry of a .ckpt with sides and content that seldom fit."""
    numbers = [
        varint(rng.choice((0, 1, 2, 255, 2**31, 2**62, 2**63, 2**64 - 1)))
        for _ in range(rng.randrange(12))
    ]
    sides = (
        field(1, b"".join(numbers))
        if rng.random() < 0.2
        else b"".join(b"\x08" + number for number in numbers[:4])
    )
    kind = rng.choice((b"Float32", b"Int8", b"str", b"BFloat16"))
    return field(
        1,
        field(1, tag)
        + field(2, sides + field(2, kind) + field(3, bytes(rng.choice((0, 0, 1, 4, 8))))),
    )


def entries_bomb(rng: random.Random) -> bytes:
    """A .ckpt of masses of something."""
    count = rng.choice((10, 1000, 20_000, 60_000))
    one = [entry(b"feature.%d" % i, rng) for i in range(20)]
    plain = field(2, field(2, b"Int8") + b"\x08\0")
    masses = (
        lambda: b"".join(one) * (count // 20),
        lambda: field(1, b"") * (2 * count),
        lambda: b"\x78\x05" * (10 * count),
        lambda: field(1, field(1, b"a" * count) + field(2, b"")),
        lambda: field(1, field(1, b"a") + field(2, field(1, b"\1" * count))),
        lambda: b"".join(field(1, field(1, b"%d" % i) + plain) for i in range(count)),
    )
    content = b"".join(rng.choice(masses)() for _ in range(rng.randint(1, 2)))[: 2 << 20]
    return mutate(content, rng) if content and rng.random() < 0.5 else content


def memory(kind: str) -> int:
    """VmRSS (now) or VmHWM (at most) of this process, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{kind}:"))


def fuzz(seed_path: Path, count: int, seed: int, mark: Path) -> dict[str, object]:
    """Open `count` mutations of one file; figures, or an exception of the code under test."""
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
        content = contents[chosen]
        is_bomb = content[:2] == b"PK" and rng.random() < 0.1
        if chosen.name == "opcodes.pt":
            mutated = pickle_bomb(rng, target)
        elif chosen.name == "entries.ckpt":
            mutated = entries_bomb(rng)
        elif is_bomb:
            mutated = bomb(content, rng)
        elif content[:2] == b"PK" and rng.random() < 0.5:
            mutated = mutate_pickle(content, rng)
        elif "payload" in chosen.name and rng.random() < 0.1:
            mutated = content
        elif chosen.suffix == ".json" and rng.random() < 0.7:
            mutated = mutate_json(content, rng)
        elif chosen.suffix == ".safetensors" and rng.random() < 0.5:
            mutated = mutate_head(content, rng)
        else:
            mutated = mutate(content, rng)
            if chosen.name == "checked.ckpt" and rng.random() < 0.8:
                mutated = mutate(content[:-17], rng)
                mutated += b"crc_num" + zlib.crc32(mutated).to_bytes(10, "big")
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
            command = [
                sys.executable,
                __file__,
                "--one",
                str(path),
                "--count",
                str(arguments.count),
                "--seed",
                str(arguments.seed),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            failed |= done.returncode != 0
            told = f"FAILED ({done.returncode}): {done.stderr.strip()[-1500:]}"
            print(f"{kind:<24}{done.stdout.strip() or told}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
