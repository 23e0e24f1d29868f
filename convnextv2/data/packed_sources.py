"""The sources of a recipe whose images are not files, but are in shards or rows of data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convnextv2.data.hugging_face import is_row_set, open_rows, row_source
from convnextv2.data.shards.find import are_shards, find_shards
from convnextv2.data.shards.sources import shard_source
from convnextv2.data.source import Source
from convnextv2.data.splits import asked_split, check_val_split, held_out_by_training, hold_out
from convnextv2.errors import DataError
from convnextv2.recipe.columns import read_columns
from convnextv2.recipe.knobs import Recipe


@dataclass(frozen=True)
class PackedSplits:
    """The splits of shards, or of a data set that consists of rows.

    Attributes:
        training: The training split, as an argument of `build`.
        validation: The validation split; empty without one.
        has_splits: Whether the data have splits.
        notes: Messages to the user about what was found.
        build: Builds a source from a split. Arguments: the split, whether labels are needed, and
            the names of the classes, which may be empty.
    """

    training: Any
    validation: Any
    has_splits: bool
    notes: tuple[str, ...]
    build: Callable[[Any, bool, Sequence[str]], Source]


def find_packed_splits(recipe: Recipe) -> PackedSplits | None:
    """Find the splits of shards or rows; return None if `data_dir` names something else."""
    where, columns = recipe.data_dir, read_columns(recipe.columns)
    train = asked_split(recipe, "train_split")
    val = asked_split(recipe, "val_split")
    names = ("images_dir", "image_suffix", "label_separator")
    idle = ", ".join(name for name in names if getattr(recipe, name))
    said = [f"No effect here: {idle} ({where} is not a table)."] if idle else []
    if is_row_set(where):
        rows = open_rows(where, train, val)

        def build_rows(split: Any, labelled: bool, classes: Sequence[str]) -> Source:
            return row_source(
                where, rows, split, labelled=labelled, class_names=classes, columns=columns
            )

        notes = (*rows.notes, *said)
        return PackedSplits(rows.training, rows.validation, rows.has_splits, notes, build_rows)
    if not are_shards(where):
        return None
    shards = find_shards(where, train, val)

    def build_shards(some: Any, labelled: bool, classes: Sequence[str]) -> Source:
        return shard_source(
            where,
            some,
            labelled=labelled,
            class_names=classes,
            label_field=columns.get("label", ""),
            cache_gb=recipe.shard_cache_gb,
        )

    notes = (*shards.notes, *said)
    return PackedSplits(shards.training, shards.validation, shards.has_splits, notes, build_shards)


def find_packed_sources(
    splits: PackedSplits, recipe: Recipe, labelled: bool
) -> tuple[Source, Source | None]:
    """Build the sources of a recipe from its splits; see `sources.find_sources`."""
    training = splits.build(splits.training, labelled, ())
    training = replace(training, notes=(*splits.notes, *training.notes))
    if not labelled:
        return training, None
    if splits.validation:
        return training, splits.build(splits.validation, True, training.class_names)
    if not splits.has_splits:
        if recipe.val_while_train:
            return hold_out(training, recipe, f"{recipe.data_dir} has no splits")
        return training, None
    check_val_split(recipe, Path(recipe.data_dir))
    note = f"{recipe.data_dir}: has nothing for validation, so nothing is validated."
    return replace(training, notes=(*training.notes, note)), None


def packed_validation_source(
    splits: PackedSplits, recipe: Recipe, class_names: Sequence[str], trained_on: bool
) -> Source:
    """Build the source to evaluate a model on; see `sources.validation_source`."""
    if splits.has_splits and not splits.validation:
        raise DataError(f"{recipe.data_dir}: has nothing to validate on. Set val_split.")
    source = splits.build(splits.validation or splits.training, True, class_names)
    if trained_on and not splits.has_splits:
        source = held_out_by_training(source, recipe)
    return replace(source, notes=splits.notes + source.notes)
