"""Reads the samples of a tar file in the format of WebDataset from its headers.

Files whose names are the same up to the first dot of the last part belong to one sample, and lie
side by side. The rest of a name states the kind of file, such as jpg or cls. Source: the
description of the format in the documentation of the webdataset package.
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
"""The usual fields for the class in a sample's JSON file, in the order in which they are tried."""

_LABELS = ("cls", "json", "txt")
_MAX_LABEL = 2**20
_BLOCK = tarfile.BLOCKSIZE
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class Sample:
    """One image of a tar file.

    Attributes:
        member: The name of the image in the tar file.
        offset: The position of its content, in bytes.
        size: The size of its content, in bytes.
        label: Its class as text; "" without a class.
        kind: Where the class is stated: "cls", "json", "txt", "folder" or "".
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
    """The samples of a tar file. Only headers and small files with labels are read.

    Attributes:
        passed_over: The number of files that are neither images nor labels, by ending in lower
            case.
        links: The number of entries without content, such as links, and of sparse files.
    """

    def __init__(self, file: IO[bytes], size: int, name: str, label_field: str = "") -> None:
        """Keep the arguments. The file is read by iteration.

        Args:
            file: The tar file, seekable.
            size: The size of the file, in bytes.
            name: The name of the file in error messages.
            label_field: The field with the class in JSON files; "" for `LABEL_FIELDS`.
        """
        self._file, self._size, self._name = file, size, name
        self._fields = (label_field,) if label_field else LABEL_FIELDS
        self.passed_over: Counter[str] = Counter()
        self.links = 0

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in the order of the file.

        Raises:
            DataError: The file is not a tar file or is cut short, or a sample cannot be understood.
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
                    tar.members.clear()  # type: ignore[attr-defined]  # otherwise every header is kept
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
                    f"{self._name}: is compressed with {kind}, so its images cannot be read one by "
                    "one. Unpack it to a plain .tar file."
                )
        if not start:
            raise DataError(f"{self._name}: is empty. Copy or download it again.")

    def _check_end(self, offset: int) -> None:
        """Check that the file ends with the end mark of tar, a block of zeros.

        The mark is missing if a copy was interrupted between two members. The reader of tarfile
        also stops, without an error, at a header that it cannot understand.
        """
        self._file.seek(offset)
        if self._file.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(
                f"{self._name}: is damaged or cut short at byte {offset:,} of {self._size:,}: "
                "neither a file nor the end mark of a tar file follows. Copy or download it again."
            )

    def _cut_short(self, member: str) -> str:
        return (
            f"{self._name}: is cut short: {plain(member)} ends after its last byte, "
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
        """Return the class that a JSON text states; "" if it has none of the fields."""
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(f"{self._name}: {plain(key)}.json is not JSON. Fix it.") from None
        if isinstance(content, dict):
            content = next((content[name] for name in self._fields if name in content), "")
        if isinstance(content, bool) or not isinstance(content, str | int):
            raise DataError(
                f"{self._name}: {plain(key)}.json has the class {plain(repr(content))[:60]}, "
                "expected a number or a word. Name the field: --columns label=FIELD."
            )
        return str(content).strip()


def describe_kinds(kinds: Sequence[str]) -> str:
    """Describe where the classes of samples are stated, such as ".cls files"."""
    words = {"cls": ".cls files", "json": ".json files", "txt": ".txt files", "folder": "folders"}
    return " and ".join(words.get(kind, "no files") for kind in kinds)
