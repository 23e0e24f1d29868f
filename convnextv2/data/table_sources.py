"""Sources of images that a table lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from convnextv2.data.class_names import class_name_of, is_not_trained
from convnextv2.data.manifest import LabelKind, LabelSets, Table, count_words, read_table
from convnextv2.data.source import Source
from convnextv2.data.split_names import Kind, kind_of
from convnextv2.errors import DataError

_KNOBS: dict[Kind, str] = {"train": "train_split", "validation": "val_split"}
_MAX_NAMED = 5
_USES: dict[Kind, str] = {"train": "training", "validation": "validation", "test": "testing"}


@dataclass(frozen=True)
class TableOptions:
    """The options with which a table is read; see `read_table`.

    Attributes:
        columns: Role (path, label or split) -> column.
        images_dir: The folder that relative paths start from; empty for the folder of the table.
        suffix: The ending to add to names without one.
        splits: The name of each kind of split that the user gave. Otherwise usual names are used.
        labels: The kind of labels: one for each image, any number, or detected.
        separator: The separator of several names in one label; empty to detect it.
    """

    columns: Mapping[str, str]
    images_dir: str = ""
    suffix: str = ""
    splits: Mapping[Kind, str] | None = None
    labels: LabelKind = "auto"
    separator: str = ""

    def read(
        self,
        path: Path,
        *,
        labelled: bool,
        wanted: Callable[[Mapping[str, int]], Collection[str]] | None = None,
    ) -> Table:
        """Read a table with these options; see `read_table`."""
        return read_table(
            path,
            columns=self.columns,
            images_dir=self.images_dir or None,
            suffix=self.suffix,
            labelled=labelled,
            kind=self.labels,
            separator=self.separator,
            wanted=wanted,
        )


@dataclass(frozen=True)
class TableSplits:
    """The images of a table, by split.

    Attributes:
        images: The images of each requested kind of split that the table has. If the table has no
            column of splits, "train" has all images.
        has_splits: Whether the table has a column of splits.
        unused: Each word in that column that means no requested split -> its number of rows.
    """

    images: Mapping[Kind, Source]
    has_splits: bool
    unused: Mapping[str, int]


def listed_images(
    path: Path,
    options: TableOptions,
    kinds: Sequence[Kind],
    *,
    labelled: bool = True,
    class_names: Sequence[str] = (),
) -> TableSplits:
    """Read the images that a table lists.

    Args:
        path: The table.
        options: How to read it.
        kinds: The requested kinds of splits. If there are splits, the first kind must exist.
        labelled: Whether labels are needed.
        class_names: The classes in the order of their indices; empty for those of the first
            kind, sorted as text.

    Returns:
        The images. The first kind has the notes.

    Raises:
        DataError: The table cannot be used, has no row of the first split, or a class that is not
            among the given ones.
    """
    words: dict[Kind, list[str]] = {}
    unused: dict[str, int] = {}

    def wanted(counts: Mapping[str, int]) -> Collection[str]:
        for kind in kinds:
            words[kind] = _words_of(kind, counts, (options.splits or {}).get(kind))
        if not words[kinds[0]]:
            raise DataError(
                f"{path}: lists no images for {_USES[kinds[0]]}. The words in its column of splits "
                f"are {count_words(counts)}. Set {_KNOBS[kinds[0]]} to the right one."
            )
        used = [word for some in words.values() for word in some]
        if len(set(used)) < len(used):
            twice = next(word for word in used if used.count(word) > 1)
            raise DataError(
                f"{path}: train_split and val_split both name {twice}. An image is for one of them."
            )
        unused.update({word: count for word, count in counts.items() if word not in used})
        return used

    table = options.read(path, labelled=labelled, wanted=wanted)
    if table.splits is None:
        return TableSplits({"train": source_of(path, table, class_names)}, False, {})
    images: dict[Kind, Source] = {}
    notes = (*table.notes, _announce(path, words, unused))
    for kind in kinds:
        if words[kind]:
            part = table.of_splits(words[kind])
            source = source_of(path, part, class_names)
            class_names = class_names or source.class_names
            images[kind] = Source(
                source.names, source.targets, source.class_names, notes=() if images else notes
            )
    return TableSplits(images, True, unused)


def _words_of(kind: Kind, counts: Mapping[str, int], given: str | None) -> list[str]:
    """Return the words in a column of splits that mean one split.

    A user may name several with commas between them, such as the folds 0,1,2.
    """
    if given is not None:
        named = {given, *(part.strip() for part in given.split(","))}
        exact = [word for word in counts if word in named]
        missing = sorted(named - {given} - set(exact)) if "," in given else []
        if exact and missing and given not in counts:
            raise DataError(
                f"{_KNOBS[kind]} = {given}: the column of splits has no {missing[0]}. It has "
                f"{count_words(counts)}."
            )
        alike = [word for word in counts if kind_of(word) and kind_of(word) == kind_of(given)]
        return exact or alike
    return [word for word in counts if kind_of(word) == kind]


def _announce(path: Path, words: Mapping[Kind, Sequence[str]], unused: Mapping[str, int]) -> str:
    uses = [f"{' and '.join(some)} for {_USES[kind]}" for kind, some in words.items() if some]
    rest = f"; not used: {count_words(unused)}" if unused else ""
    return f"{path}: its column of splits says {', '.join(uses)}{rest}."


def source_of(path: Path, table: Table, class_names: Sequence[str]) -> Source:
    """Build a source of the images of a table, or of a part of it.

    Args:
        path: The table, for error messages.
        table: The images. Without labels, the source has none.
        class_names: See `listed_images`.

    Raises:
        DataError: A class is not among the given ones.
    """
    if table.sets is not None:
        return _multi_label_source(path, table, table.sets, class_names)
    if table.labels is None:
        return Source(table.paths, notes=table.notes)
    counts = table.labels.counts()
    classes = list(class_names or table.classes) or sorted(counts)
    number = {class_name_of(name): i for i, name in enumerate(classes)}
    if unknown := sorted(counts.keys() - number.keys()):
        raise DataError(
            f"{path}: class {unknown[0]!r} ({counts[unknown[0]]:,} rows) {is_not_trained(classes)}."
        )
    codes = np.array([number.get(word, -1) for word in table.labels.words], np.int64)
    return Source(table.paths, codes[table.labels.codes], tuple(classes), notes=table.notes)


def _multi_label_source(
    path: Path, table: Table, sets: LabelSets, class_names: Sequence[str]
) -> Source:
    """Build a source with int8 targets (N, K), whose values are those of `LabelSets`."""
    occurring = sets.occurring()
    classes = list(class_names) or (list(sets.classes) if sets.are_columns else occurring)
    known = {class_name_of(name) for name in classes}
    if unknown := [name for name in occurring if name not in known]:
        hints = []
        for name in unknown[:_MAX_NAMED]:
            near = get_close_matches(name, classes, n=1)
            hints.append(f"{name!r} (is {near[0]!r} meant?)" if near else repr(name))
        more = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        raise DataError(
            f"{path}: the labels {', '.join(hints)}{more} are not among the {len(classes)} trained "
            f"classes ({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}). Correct "
            "them, or leave their images out."
        )
    return Source(table.paths, sets.of_classes(classes), tuple(classes), notes=table.notes)
