"""Writes embeddings with the paths of their images: NPY, CSV or Parquet.

For `shoes.npy`:

    shoes.npy              float32 (N, D)
    shoes.npy.paths.csv    path, and label where it is known, of each row; in the other formats,
                           these are columns of the file itself
    shoes.npy.failed.csv   path and error of each image that has no row; only if there are any
    shoes.npy.json         what the embeddings are, with the hash and the licence of the weights

All of them appear at the end, one after another, and the embeddings last.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.errors import MissingPackageError, RecipeError
from convnextv2.files import replacing, sync_folder
from convnextv2.lock import building
from convnextv2.places import check_place, check_unread, exists_already

Array = NDArray[np.float32]
Append = Callable[[Sequence[str], Sequence[str], Array], None]
"""Takes the paths, the labels (empty where none are known) and the embeddings of some images."""

SUFFIXES = (".npy", ".csv", ".parquet")


def check_embedding_file(path: Path, inputs: Sequence[str | Path]) -> None:
    """Check before any work is done that embeddings can be written.

    Args:
        path: The file.
        inputs: What the user gave to read, which must not be replaced.

    Raises:
        RecipeError: The ending is unknown, one of the files has the name of an input, of a folder
            or of another file, or the embeddings would be read as an image.
        MissingPackageError: pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RecipeError(f"out = {path}: expected a file that ends in {', '.join(SUFFIXES)}.")
    read = {Path(given).resolve() for given in inputs}
    for file in (path, *(companion(path, ending) for ending in _BESIDE)):
        if file.resolve() in read:
            raise RecipeError(f"out = {path}: {file} is to be read, and would be replaced.")
        if file.is_dir():
            raise RecipeError(f"out = {path}: {file} is a folder. Choose another name.")
    if path.is_file() and not companion(path, _ABOUT).is_file():
        raise RecipeError(f"out = {path}: {exists_already('a file of embeddings')}")
    if suffix == ".npy":  # which may also hold an image
        check_unread(path, inputs)
    check_place(path)
    if suffix == ".parquet":
        _pyarrow()


_PATHS, _FAILED, _ABOUT = ".paths.csv", ".failed.csv", ".json"
_BESIDE = (_PATHS, _FAILED, _ABOUT)


def companion(path: Path, ending: str) -> Path:
    """Return the name of a file that belongs to an embedding file."""
    return path.with_name(path.name + ending)


class EmbeddingFile:
    """The files of some embeddings, written while the embeddings are computed.

    Args:
        path: The main file.
        dimensions: The length of an embedding.
        labelled: Whether labels are known.
        about: What the embeddings are, for the metadata.

    Raises:
        RunError: Another process is writing the same embeddings.
    """

    def __init__(
        self, path: Path, dimensions: int, *, labelled: bool, about: Mapping[str, Any]
    ) -> None:
        self.path, self.dimensions, self.rows = path, dimensions, 0
        self._about = dict(about)
        self._place, self._stack = contextlib.ExitStack(), contextlib.ExitStack()
        try:
            # Files of two processes that write the same embeddings must not be mixed.
            self._made = self._place.enter_context(building(path)) / path.name
            self._place.push(self._stack)  # so that it is removed even if a file cannot be closed
            write = {".npy": _npy, ".csv": _csv, ".parquet": _parquet}[path.suffix.lower()]
            self._append = self._stack.enter_context(
                write(self._made, dimensions, labelled, self._about)
            )
        except BaseException as error:
            self.give_up(error)
            raise

    def append(self, paths: Sequence[str], labels: Sequence[str], embeddings: Array) -> None:
        """Append rows.

        Args:
            paths: The paths of N images.
            labels: The label of each; empty if labels are unknown.
            embeddings: float32 (N, D).
        """
        self._append(paths, labels, embeddings)
        self.rows += len(paths)

    def close(self, failures: Sequence[tuple[str, str]]) -> list[Path]:
        """Finish the files, and move them into place.

        Args:
            failures: Path and reason of each image without a row.

        Returns:
            The files, the embeddings first.

        Raises:
            OSError: They cannot be written. None of them is left behind half written.
        """
        try:
            return self._close(failures)
        except BaseException as error:
            self.give_up(error)
            raise

    def _close(self, failures: Sequence[tuple[str, str]]) -> list[Path]:
        self._about |= {"rows": self.rows, "failed": len(failures)}
        about = json.dumps(self._about, indent=2) + "\n"
        companion(self._made, _ABOUT).write_text(about, encoding="utf-8")
        if failures:
            with replacing(companion(self._made, _FAILED)) as temporary, _text(temporary) as file:
                csv.writer(file).writerows([("path", "error"), *failures])
        else:
            companion(self.path, _FAILED).unlink(missing_ok=True)  # left by an earlier attempt
        self._stack.close()
        written = [self.path]
        for ending in (_PATHS, _ABOUT, _FAILED):
            if (made := companion(self._made, ending)).is_file():
                os.replace(made, companion(self.path, ending))
                written.append(companion(self.path, ending))
        os.replace(self._made, self.path)
        sync_folder(self.path.parent)
        self._place.close()
        return written

    def give_up(self, error: BaseException) -> None:
        """Remove unfinished files, and leave existing ones unchanged."""
        self._place.__exit__(type(error), error, error.__traceback__)


def _text(path: Path) -> IO[str]:
    """Open a text file in which file names are written as the bytes that they are."""
    return open(path, "w", encoding="utf-8", errors="surrogateescape", newline="")


@contextlib.contextmanager
def _npy(path: Path, dimensions: int, labelled: bool, about: Mapping[str, Any]) -> Iterator[Append]:
    count = 0
    with (
        replacing(path) as temporary,
        replacing(companion(path, _PATHS)) as table,
        open(temporary, "wb") as file,
        _text(table) as text,
    ):
        rows = csv.writer(text)
        rows.writerow(["path", "label"] if labelled else ["path"])
        _head(file, 0, dimensions)
        start = file.tell()

        def append(paths: Sequence[str], labels: Sequence[str], embeddings: Array) -> None:
            nonlocal count
            file.write(np.ascontiguousarray(embeddings, "<f4").tobytes())
            rows.writerows(zip(paths, labels, strict=True) if labelled else ([p] for p in paths))
            count += len(paths)

        yield append
        file.seek(0)
        _head(file, count, dimensions)
        assert file.tell() == start, "NumPy leaves room for the number of rows"


def _head(file: IO[bytes], rows: int, dimensions: int) -> None:
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
    np.lib.format.write_array_header_1_0(file, shape)


@contextlib.contextmanager
def _csv(path: Path, dimensions: int, labelled: bool, about: Mapping[str, Any]) -> Iterator[Append]:
    with replacing(path) as temporary, _text(temporary) as file:
        rows = csv.writer(file)
        names = [f"embedding_{i}" for i in range(dimensions)]
        rows.writerow(["path", *["label"] * labelled, *names])

        def append(paths: Sequence[str], labels: Sequence[str], embeddings: Array) -> None:
            for i, (name, row) in enumerate(zip(paths, embeddings, strict=True)):
                # Nine digits are enough to restore every float32.
                numbers = [f"{value:.9g}" for value in row.tolist()]
                rows.writerow([name, *([labels[i]] if labelled else []), *numbers])

        yield append


@contextlib.contextmanager
def _parquet(
    path: Path, dimensions: int, labelled: bool, about: Mapping[str, Any]
) -> Iterator[Append]:
    pyarrow, parquet = _pyarrow()
    columns = [("path", pyarrow.string()), ("label", pyarrow.string())][: 1 + labelled]
    columns.append(("embedding", pyarrow.list_(pyarrow.float32(), dimensions)))
    schema = pyarrow.schema(columns, metadata={"convnextv2": json.dumps(about)})
    with replacing(path) as temporary, parquet.ParquetWriter(str(temporary), schema) as writer:

        def append(paths: Sequence[str], labels: Sequence[str], embeddings: Array) -> None:
            values = pyarrow.array(np.ascontiguousarray(embeddings, np.float32).ravel())
            arrays = [pyarrow.array([_utf8(name) for name in paths])]
            arrays += [pyarrow.array(list(labels), pyarrow.string())] * labelled
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(values, dimensions))
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

        yield append


def _utf8(name: str) -> str:
    """Write bytes of a file name that are not UTF-8 as escapes, since Parquet's text is UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise MissingPackageError("pyarrow", "parquet") from None
    return pyarrow, parquet
