"""Write the embeddings of images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convnextv2
from convnextv2.console import print_json
from convnextv2.data.folders import files
from convnextv2.data.loader import build_prediction_loader
from convnextv2.data.manifest import read_table
from convnextv2.data.notices import none_readable
from convnextv2.data.output_path import check_outside_data
from convnextv2.data.source import Source
from convnextv2.deploy.artifact import is_artifact
from convnextv2.errors import RecipeError
from convnextv2.find import find_weights, recipe_of
from convnextv2.inference.embedder import Embedder, open_embedder
from convnextv2.inference.embedding_file import EmbeddingFile, check_embedding_file
from convnextv2.kernels import choice
from convnextv2.recipe.columns import read_columns
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.text import counted, plain
from convnextv2.verbs.options.predicting import EmbedOptions

_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")
_ROWS_AT_ONCE = 1024
"""Images whose embeddings are kept in memory before they are written, as a Parquet row group."""


@dataclass(frozen=True)
class _Images:
    source: Source
    labels: Sequence[str] | None


@takes(EmbedOptions)
def embed(options: EmbedOptions) -> Path:
    """Write the embeddings of images: the pooled features after the final norm.

    Rows follow the order in which the images are given, and those in a folder are sorted by path,
    whatever the number of workers. An image that cannot be read has no row. It is named on stderr
    and in a file beside the embeddings, unless `bad_images` is "fail".

    Returns:
        The file with the embeddings.

    Raises:
        RecipeError: `out` cannot be used, or there are no labels where they were asked for.
        DataError: There are no images, or none of them can be read.
        ArtifactError: The artifact has no embeddings.
        MissingPackageError: Parquet was asked for, and pyarrow is not installed.
    """
    recipe, lines = options.recipe()
    out = Path(options.out)
    if out.suffix.lower() == ".npy" and not is_artifact(options.run):  # it may hold an image
        check_outside_data(out, recipe_of(find_weights(options.run)))
    check_embedding_file(out, options.images)
    choice.choose(recipe.kernels)
    images = _find(options, recipe)
    embedder = open_embedder(options.run, device=recipe.device, precision=recipe.precision)
    for line in (*lines, *embedder.notes, *images.source.notes):
        print(line, file=sys.stderr)
    file, failures = _write(out, options, recipe, embedder, images)
    for name, why in failures:
        print(f"{plain(name)}: {plain(why)} Left out.", file=sys.stderr)
    paths = file.close(failures)
    print(f"{counted(file.rows, 'embedding(s)')}: {', '.join(map(str, paths))}")
    print_json(
        {
            "path": str(out),
            "rows": file.rows,
            "dimensions": file.dimensions,
            "normalize": options.normalize,
            "files": [str(path) for path in paths],
            "failed": [{"path": name, "error": why} for name, why in failures],
            "sha256": embedder.about["sha256"],
            "licence": embedder.about["licence"],
        }
    )
    return out


def _find(options: EmbedOptions, recipe: Recipe) -> _Images:
    """Find the images, and their labels if these are asked for."""
    given = [Path(path) for path in options.images]
    tables = [path for path in given if path.suffix.lower() in _TABLES and path.is_file()]
    if tables:
        if len(given) > 1:
            raise RecipeError(
                f"images = {tables[0]}: is a table, which cannot be combined with other paths. "
                "Give one table, or images and folders."
            )
        return _from_table(tables[0], options.labels, recipe)
    if options.labels == "table":
        raise RecipeError(
            "labels = table: no table of images is given. Use labels folder for folders of classes."
        )
    source = files(given, max_pixels=recipe.max_image_pixels)
    if options.labels == "folder":
        return _Images(source, [Path(name).parent.name for name in source.names])
    return _Images(source, None)


def _from_table(path: Path, labels: str, recipe: Recipe) -> _Images:
    if labels == "folder":
        raise RecipeError(
            f"labels = folder: {path} is a table. Use labels table for the labels in it."
        )
    table = read_table(
        path,
        columns=read_columns(recipe.columns),
        images_dir=recipe.images_dir or None,
        suffix=recipe.image_suffix,
        labelled=labels == "table",
    )
    source = Source(table.paths, max_pixels=recipe.max_image_pixels, notes=table.notes)
    return _Images(source, table.labels if labels == "table" else None)


def _write(
    out: Path, options: EmbedOptions, recipe: Recipe, embedder: Embedder, images: _Images
) -> tuple[EmbeddingFile, list[tuple[str, str]]]:
    """Compute the embeddings and write them to files that only appear once `close` is called.

    Returns:
        The files, and path and reason of each image that has no row.
    """
    source, labels = images.source, images.labels
    loader = build_prediction_loader(recipe, source, embedder.transform)
    file: EmbeddingFile | None = None
    has_row = np.zeros(len(source), bool)
    kept: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def flush() -> None:
        if not kept:
            return
        assert file is not None
        rows = np.concatenate([rows for rows, _ in kept]).tolist()
        names = [source.names[row] for row in rows]
        found = np.concatenate([embeddings for _, embeddings in kept])
        file.append(names, [labels[row] for row in rows] if labels is not None else [], found)
        kept.clear()

    try:
        for batch in loader:
            rows = batch.indices.numpy()
            embeddings = _normalised(embedder.run(batch.pixels), options.normalize)
            if file is None:
                about = _about(options, embedder, embeddings.shape[1])
                file = EmbeddingFile(
                    out, embeddings.shape[1], labelled=labels is not None, about=about
                )
            kept.append((rows, embeddings))
            has_row[rows] = True
            if sum(len(rows) for rows, _ in kept) >= _ROWS_AT_ONCE:
                flush()
        flush()
    except BaseException as error:
        if file is not None:
            file.give_up(error)
        raise
    if file is None:
        raise none_readable(source.names)
    missing = [source.names[row] for row in np.flatnonzero(~has_row).tolist()]
    return file, [(name, loader.skipped.get(name, "not readable.")) for name in missing]


def _normalised(embeddings: NDArray[np.float32], how: str) -> NDArray[np.float32]:
    """Divide each row by its Euclidean norm if that is asked for. A row of zeros stays zero."""
    if how == "none":
        return embeddings
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (embeddings / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled


def _about(options: EmbedOptions, embedder: Embedder, dimensions: int) -> dict[str, Any]:
    """Return the metadata of the embeddings."""
    return {
        "dimensions": dimensions,
        "dtype": "float32",
        "normalize": options.normalize,
        "labels": options.labels,
        **embedder.about,
        "convnextv2": convnextv2.__version__,
    }
