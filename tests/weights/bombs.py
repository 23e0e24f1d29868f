"""Pickles that cost memory or time far beyond their length where they are unpickled."""

import io
import struct
import zipfile
from pathlib import Path

PROTO, STOP = b"\x80\x02", b"."
MAGIC = PROTO + b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" + STOP


def text(value: str) -> bytes:
    """BINUNICODE of a text."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """LONG1 of an integer."""
    raw = value.to_bytes(15, "little", signed=True)
    return b"\x8a\x0f" + raw


def call(name: str, *arguments: bytes) -> bytes:
    """GLOBAL, its arguments and REDUCE."""
    module, _, function = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n(" + b"".join(arguments) + b"tR"


def small_bombs() -> dict[str, bytes]:
    """Pickles of at most a few kilobytes each, by what they do."""
    gigabytes = number(3 << 30)
    doubled = b"]" + b"q\0" + b"".join(b"0(h%ch%ctq%c" % (i, i, i + 1) for i in range(60))
    storage = (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + number(1 << 40)
        + b"tQ"
    )
    one = (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("0")
        + text("cpu")
        + number(1)
        + b"tQ"
    )
    wide = b"(" + number(1 << 20) + number(1 << 20) + b"t", b"(" + number(0) + number(0) + b"t"
    nested = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    return {
        "bytearray": call("builtins.bytearray", gigabytes),
        "bytearray in a dictionary": b"}"
        + text("model")
        + call("builtins.bytearray", gigabytes)
        + b"s",
        "bytes": call("builtins.bytes", gigabytes),
        "range made a list": call("builtins.list", call("builtins.range", gigabytes)),
        "product of a list": call("operator.mul", b"](K\1e", gigabytes),
        "numpy.zeros": call("numpy.zeros", gigabytes),
        "torch.zeros": call("torch.zeros", gigabytes),
        "sized dictionary": call("collections.defaultdict", b"cbuiltins\nlist\n")
        + gigabytes
        + b"s",
        "memo far away": b"]r\xff\xff\xff\x7f",
        "memo farther away": b"]r\xff\xff\xff\xff",
        "length beyond the end": b"\x8e" + struct.pack("<Q", 1 << 40) + b"ab",
        "text beyond the end": b"X\xff\xff\xff\xff" + b"ab",
        "negative length": b"\x8b" + struct.pack("<i", -5) + b"ab",
        "frame beyond the end": b"\x95" + struct.pack("<Q", 1 << 60) + b"N",
        "nested tuples as a key": b"}" + doubled + b"K\1s",
        "nested tuples in a set": b"\x8f(" + doubled + b"\x90",
        "nested tuples hashed": call("builtins.hash", doubled),
        "storage of terabytes": call(
            "torch._utils._rebuild_tensor_v2",
            storage,
            b"K\0",
            b"K\1\x85",
            b"K\1\x85",
            b"\x89",
            b"N",
        ),
        "one number repeated": b"}"
        + text("stem.0.weight")
        + call("torch._utils._rebuild_tensor_v2", one, b"K\0", wide[0], wide[1], b"\x89", b"N")
        + b"s",
        "beyond its storage": call(
            "torch._utils._rebuild_tensor_v2", one, number(5), b"K\1\x85", b"K\1\x85", b"\x89", b"N"
        ),
        "negative stride": call(
            "torch._utils._rebuild_tensor_v2",
            one,
            b"K\0",
            b"K\1\x85",
            number(-1) + b"\x85",
            b"\x89",
            b"N",
        ),
        "zero and huge sides": call(
            "torch._utils._rebuild_tensor_v2",
            one,
            b"K\0",
            b"K\0" + number(1 << 61) + b"\x86",
            b"K\0K\0\x86",
            b"\x89",
            b"N",
        ),
        "meta tensor": call(
            "torch._utils._rebuild_meta_tensor_no_storage",
            b"ctorch\nfloat32\n",
            number(1 << 50) + b"\x85",
            b"K\1\x85",
            b"\x89",
        ),
        "subclasses in subclasses": nested * 500 + (b"cx\ny\n" + b")N") + b"tR" * 5,
        "lists in lists": b"]" * 3000 + b"a" * 2999,
        "empty": b"",
        "stack taken empty": b"0",
        "a mark that is not there": b"t",
    }


def large_bombs(size: int) -> dict[str, bytes]:
    """Pickles of about `size` bytes whose objects would take many times that."""
    return {
        "dictionaries": b"}" * size,
        "lists": b"]" * size,
        "sets": b"\x8f" * size,
        "marks": b"(" * size,
        "duplicates": b"N" + b"2" * size,
        "memo": b"N" + b"\x94" * size,
        "classes": b"".join(b"ca\nb%d\n" % i for i in range(size // 10)),
        "calls": b"ca\nb\n" + b")R" * (size // 2),
        "wide text": b"X" + struct.pack("<I", size) + "😀".encode() + b"a" * (size - 4),
        "texts": b"".join(text("😀" + "a" * 400) for _ in range(size // 410)),
        "numbers": b"(" + b"G\0\0\0\0\0\0\0\1" * (size // 9) + b"l",
        "long integer": b"\x8b" + struct.pack("<i", size) + b"\x7f" * size,
    }


STORAGES = 5_000
"""The storages that archives of `crowds` need."""


def crowds() -> dict[str, bytes]:
    """Pickles of so many things that no step may look at all of them for each of them."""

    def tensor(key: int) -> bytes:
        place, one = text(f"{key}") + text("cpu"), b"K\1\x85"
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + place + b"K\1tQ"
        return call("torch._utils._rebuild_tensor_v2", storage, b"K\0", one, one, b"\x89", b"N")

    entries = (text(f"{i}") + b"}" + text("stem.0.weight") + b"h\1ss" for i in range(50_000))
    prefixes = (text(f"{i}.stem.0.weight") + b"h\1s" for i in range(50_000))
    anchors = (text(f"{i}.features.0.0.weight") + b"h\1s" for i in range(50_000))
    tensors = (text(f"{i}") + tensor(i) + b"s" for i in range(STORAGES))
    made = {"entries": entries, "prefixes": prefixes, "anchors": anchors, "tensors": tensors}
    return {name: tensor(0) + b"q\x010}" + b"".join(parts) for name, parts in made.items()}


def as_archive(pickled: bytes, path: Path, storages: int = 1) -> Path:
    """An archive as `torch.save` writes it around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + pickled + STOP)
        archive.writestr("archive/version", "3\n")
        for key in range(storages):
            archive.writestr(f"archive/data/{key}", bytes(4))
    return path


def as_old(pickled: bytes, path: Path) -> Path:
    """A checkpoint of before 1.6 around any pickle."""
    path.write_bytes(
        MAGIC + PROTO + b"M\xe9\x03." + PROTO + b"}." + PROTO + pickled + STOP + PROTO + b"]."
    )
    return path


def many_entries(count: int, path: Path) -> Path:
    """An archive with masses of empty entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + b"}" + STOP)
    content = out.getvalue()
    at = content.rfind(b"PK\5\6")
    start = content.rfind(b"PK\1\2")
    entry = bytearray(content[start : start + 46])
    entry[28:30] = struct.pack("<H", 1)
    directory = content[start:at] + b"".join(
        bytes(entry) + b"%c" % (65 + i % 26) for i in range(count)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), start, 0)
    path.write_bytes(content[:start] + directory + end)
    return path
