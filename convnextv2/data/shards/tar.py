"""The samples of one tar file, found by its headers alone.

The form is WebDataset's: files whose names are the same up to the first dot of the last part belong
to one sample and lie side by side. The rest of the name says what a file is, such as jpg or cls.
Source: the format's description in the documentation of the webdataset package.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from convnextv2.data.formats import SUFFIXES
from convnextv2.data.listing import COMPANIONS
from convnextv2.errors import DataError
from convnextv2.text import plain

LABEL_FIELDS = ("label", "cls", "class", "class_name", "label_name", "category", "target")
"""Fields of a sample's JSON file that may hold its class, in the order in which they are tried."""

_LABELS = ("cls", "json", "txt")
_MAX_LABEL = 2**20
_BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Sample:
    """One image of a tar file.

    Attributes:
        member: The name of the image in the tar file.
        offset: Where its content begins, in bytes.
        size: Its length, in bytes.
        label: Its class as a word; "" if nothing names it.
        kind: What names the class: "cls", "json", "txt", "folder" or "".
    """

    member: str
    offset: int
    size: int
    label: str
    kind: str


@dataclass
class _Files:
    """The files of one sample."""

    key: str
    images: list[tuple[str, int, int]] = field(default_factory=list)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)


class TarSamples:
    """Reads the headers of a tar file, and the small files that hold labels.

    Attributes:
        passed_over: The number of files that are neither images nor labels, by ending in lower
            case.
        links: Entries without content of their own, such as links and sparse files.
    """

    def __init__(self, file: IO[bytes], size: int, name: str, label_field: str = "") -> None:
        """Read nothing yet.

        Args:
            file: The tar file, seekable.
            size: Its length, in bytes.
            name: Its name in messages.
            label_field: The field of a JSON file with the class; "" to look for it.
        """
        self._file, self._size, self._name = file, size, name
        self._fields = (label_field,) if label_field else LABEL_FIELDS
        self.passed_over: Counter[str] = Counter()
        self.links = 0

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the order of the file.

        Raises:
            DataError: It is not a tar file, is cut short, or a sample cannot be understood.
        """
        current: _Files | None = None
        for member in self._members():
            folder, slash, base = member.name.removeprefix("./").rpartition("/")
            stem, _, ending = base.partition(".")
            if not stem:  # a hidden file, such as ._1.jpg of macOS
                continue
            key = folder + slash + stem
            if current is None or key != current.key:
                yield from self._sample(current)
                current = _Files(key)
            self._add(current, member, ending.lower())
        yield from self._sample(current)

    def _members(self) -> Iterator[tarfile.TarInfo]:
        self._check_start()
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
                    if member.isreg() and not member.issparse():
                        if member.offset_data + member.size > self._size:
                            raise DataError(self._cut_short(member.name))
                        yield member
                    elif not member.isdir():
                        self.links += 1
                self._check_end(tar.offset)
        except tarfile.TarError as error:
            raise DataError(
                f"{self._name}: is damaged or cut short ({error}). Copy or download it again."
            ) from None

    def _check_start(self) -> None:
        start = self._file.read(_BLOCK)
        self._file.seek(0)
        for mark, kind in _PACKED.items():
            if start.startswith(mark):
                raise DataError(
                    f"{self._name}: is packed by {kind}, so its images cannot be read one by one. "
                    "Unpack it to a plain .tar file."
                )
        if not start:
            raise DataError(f"{self._name}: is empty. Copy or download it again.")

    def _check_end(self, offset: int) -> None:
        """Check that the block of zeros is there that ends a tar file: a copy may stop anywhere.

        The reader also stops, without a word, at a header that it cannot understand.
        """
        self._file.seek(offset)
        if self._file.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(
                f"{self._name}: is damaged or cut short at byte {offset:,} of {self._size:,}: "
                "neither a file nor the end mark of a tar file follows. Copy or download it again."
            )

    def _cut_short(self, member: str) -> str:
        return (
            f"{self._name}: is cut short: {plain(member)} ends behind its last byte, "
            f"{self._size:,}. Copy or download it again."
        )

    def _add(self, files: _Files, member: tarfile.TarInfo, ending: str) -> None:
        place = member.offset_data, member.size
        if ending in _LABELS:
            if ending in files.labels:
                raise DataError(
                    f"{self._name}: the sample {plain(files.key)} has two files .{ending}. Give "
                    "each sample a key of its own."
                )
            files.labels[ending] = place
        elif "." + ending.rpartition(".")[2] in SUFFIXES:
            files.images.append((member.name.removeprefix("./"), *place))
        else:
            suffix = "." + ending if ending else ""
            if suffix not in COMPANIONS and ending != "__key__":
                self.passed_over[suffix] += 1

    def _sample(self, files: _Files | None) -> Iterator[Sample]:
        if files is None or not files.images:
            return
        images = files.images
        if len(images) > 1:  # such as jpg beside mask.png
            images = [each for each in images if each[0].rpartition("/")[2].count(".") == 1]
        if len(images) != 1:
            names = ", ".join(plain(name) for name, _, _ in files.images[:3])
            raise DataError(
                f"{self._name}: the sample {plain(files.key)} has {len(files.images)} images "
                f"({names}). Give each image a key of its own."
            )
        label, kind = self._label(files)
        yield Sample(*images[0], label, kind)

    def _label(self, files: _Files) -> tuple[str, str]:
        for kind in _LABELS:
            if kind in files.labels:
                text = self._text(files.key, kind, *files.labels[kind])
                word = self._word(files.key, text) if kind == "json" else text.strip()
                if word:
                    return word, kind
        folder = files.key.rpartition("/")[0]
        return (folder.rpartition("/")[2], "folder") if folder else ("", "")

    def _text(self, key: str, kind: str, offset: int, size: int) -> str:
        if size > _MAX_LABEL:
            raise DataError(
                f"{self._name}: {plain(key)}.{kind} has {size:,} bytes, expected a label of at "
                f"most {_MAX_LABEL:,}."
            )
        self._file.seek(offset)
        data = self._file.read(size)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise DataError(
                f"{self._name}: {plain(key)}.{kind} is not UTF-8. Write the label as text."
            ) from None

    def _word(self, key: str, text: str) -> str:
        """Return the class in a JSON text; "" if none of the fields is there."""
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(f"{self._name}: {plain(key)}.json is not JSON. Mend it.") from None
        if isinstance(content, dict):
            content = next((content[name] for name in self._fields if name in content), "")
        if isinstance(content, bool) or not isinstance(content, str | int):
            raise DataError(
                f"{self._name}: {plain(key)}.json has the class {plain(repr(content))[:60]}, "
                "expected a number or a word. Name the field: --columns label=FIELD."
            )
        return str(content).strip()


def describe_kinds(kinds: Sequence[str]) -> str:
    """Say in words where the classes of samples come from."""
    words = {"cls": ".cls files", "json": ".json files", "txt": ".txt files", "folder": "folders"}
    return " and ".join(words.get(kind, "no files") for kind in kinds)
