"""Annotations as they are read from their files, before they are compared with the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from convnextv2.data.dense.defects import Defects
from convnextv2.data.dense.rle import Region


class RawObject(NamedTuple):
    """One object in an annotation.

    Attributes:
        box: x0, y0, x1, y1.
        label: The class index, from 0.
        crowd: See `Objects.crowd`.
        area: The stated area in px; None without one.
        region: See `Objects.regions`.
    """

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None
    region: Region = None


@dataclass
class RawImage:
    """One image in annotations.

    Attributes:
        path: The file of the image.
        size: The stated height and width; None if they are not stated.
        objects: The objects.
        is_relative: Whether coordinates are relative to the width and the height.
    """

    path: str
    size: tuple[int, int] | None = None
    objects: list[RawObject] = field(default_factory=list)
    is_relative: bool = False


class RawAnnotations(NamedTuple):
    """The annotations of a split.

    Attributes:
        images: The images with their objects.
        class_names: The classes in the order of their indices.
        total: The number of annotations, including those that were left out.
        where: The file or folder of the annotations, for messages.
        defects: The defects that were found.
        notes: Further messages to the user.
    """

    images: Iterator[RawImage] | list[RawImage]
    class_names: tuple[str, ...]
    total: int
    where: str
    defects: Defects
    notes: tuple[str, ...] = ()
