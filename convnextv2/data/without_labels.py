"""Adds images without labels to the training images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from convnextv2.data.folders import unlabelled
from convnextv2.data.path_list import PathList
from convnextv2.data.source import Source
from convnextv2.data.storage import Stored
from convnextv2.errors import DataError


def with_unlabelled(training: Source, validation: Source | None, folder: Path) -> Source:
    """Add all images in a folder to the training images.

    Images that are used already are not added. A labelled image would occur twice, and a validation
    image must not be used for training.

    Args:
        training: The images with labels, which are files.
        validation: The images for validation; None if there are none.
        folder: The folder of the images without labels.

    Returns:
        All training images. Those without labels come last and have the target -1.

    Raises:
        DataError: The folder does not exist, or it has no image that is not used already.
    """
    if not folder.is_dir():
        raise DataError(f"unlabelled = {folder}: no such folder. Give a folder of images.")
    if isinstance(training.names, Stored):
        raise DataError(
            f"unlabelled = {folder}: the images with labels are not listed in a folder or a table, "
            "so others cannot be added. Leave it out, or train on the folder."
        )
    found = unlabelled(folder)
    labelled, held_out = _full_paths(training.names), set[str]()
    if validation is not None:
        held_out = _full_paths(validation.names)
    paths = [os.path.realpath(name) for name in found.names]
    kept = [i for i, path in enumerate(paths) if path not in labelled and path not in held_out]
    notes = [*training.notes, *found.notes]
    if used := sum(path in held_out for path in paths):
        notes.append(f"{folder}: {used:,} of its images are for validation, and are left out.")
    if used := sum(path in labelled for path in paths):
        notes.append(f"{folder}: {used:,} of its images have labels, and are used once.")
    if not kept:
        raise DataError(
            f"unlabelled = {folder}: has no further images; all {len(paths)} are used already. "
            "Give other images, or leave it out."
        )
    assert training.targets is not None
    return replace(
        training,
        names=PathList.of(chain(training.names, found.subset(kept).names)),
        targets=np.concatenate([training.targets, np.full(len(kept), -1, np.int64)]),
        notes=tuple(notes),
    )


def _full_paths(names: Iterable[str]) -> set[str]:
    return {os.path.realpath(name) for name in names}
