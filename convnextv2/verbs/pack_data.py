"""Pack images into tar files."""

from __future__ import annotations

import time
from pathlib import Path

from convnextv2.console import print_json, say
from convnextv2.data.shards.pack import Packed, pack
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError, RecipeError
from convnextv2.lock import locked
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.recipe.options import takes
from convnextv2.text import counted
from convnextv2.verbs.options.data import PackDataOptions

_PROGRESS_EVERY_S = 30.0


@takes(PackDataOptions)
def pack_data(options: PackDataOptions) -> Packed:
    """Pack a folder or table of images into tar files in WebDataset's format, with an index.

    The files of the images are packed as they are. A run on the shards is the same as a run on the
    folder: order, classes, splits and pixels are equal. If packing is interrupted, repeat the
    command: it resumes with the next shard, and writes the same bytes as without the interruption.

    Returns:
        The number of shards and images.

    Raises:
        DataError: There are no images, or one of them cannot be read.
        RecipeError: `shards` lies in the data.
        RunError: `shards` holds other shards, or is being written by another process.
    """
    out, data = Path(options.shards), Path(options.data)
    if data.is_dir() and data.resolve() in (out.resolve(), *out.resolve().parents):
        raise RecipeError(
            f"shards = {out}: lies in the data, which would then hold each image twice. Choose a "
            "folder elsewhere."
        )
    given, notes = options.recipe()
    recipe = with_inferred(given, {"data_dir": str(options.data), "val_while_train": False})
    training, validation = find_sources(recipe, labelled=options.labelled)
    for line in (*notes, *training.notes, *(validation.notes if validation else ())):
        say(line)
    if training.is_multi_label:
        raise DataError(
            f"{options.data}: images have several labels each, which .cls files cannot hold. Set "
            "labelled = False to pack only the images."
        )
    with locked(out, option="shards") as note:
        if note:
            say(note)
        splits = _splits(training, validation, recipe, options.labelled)
        packed = pack(splits, out, options.images_per_shard, _Progress())
    say(
        f"{out}: {counted(packed.shards, 'shard(s)')} with {counted(packed.images, 'image(s)')}, "
        f"{packed.size / 1e6:,.1f} MB; {packed.kept:,} of them already existed."
    )
    say(f"Use them with --data_dir {out}.")
    print_json({"path": str(out), **packed._asdict()})
    return packed


def _splits(
    training: Source, validation: Source | None, recipe: Recipe, labelled: bool
) -> dict[str, Source]:
    """Choose the names of the splits. "train" would keep training from holding images out."""
    if validation:
        return {"train": training, "val": validation}
    asked = with_inferred(recipe, {"val_while_train": True})
    holds_out = not labelled or find_sources(asked, labelled=True)[1] is not None
    return {"images" if holds_out else "train": training}


class _Progress:
    """Prints the progress of packing from time to time."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            say(f"{done:,} of {total:,} shards")
