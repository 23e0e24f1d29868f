"""What a reader of annotations says of one image, before it is compared with the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from convnextv2.data.dense.defects import Defects
from convnextv2.data.dense.rle import Region


class RawObject(NamedTuple):
    """One object as its annotation has it.

    Attributes:
        box: x0, y0, x1, y1.
        label: The class number, from 0.
        crowd: See `Objects.crowd`.
        area: The area in px; None if it is not stated.
        region: See `Objects.regions`.
    """

    box: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None
    region: Region = None


@dataclass
class RawImage:
    """One image as its annotation has it.

    Attributes:
        path: The file.
        size: Height and width that are stated; None if they are not.
        objects: The objects.
        is_relative: Whether coordinates are shares of the width and the height.
    """

    path: str
    size: tuple[int, int] | None = None
    objects: list[RawObject] = field(default_factory=list)
    is_relative: bool = False


class RawAnnotations(NamedTuple):
    """What a reader found.

    Attributes:
        images: The images, one after another.
        class_names: The classes in the order of their numbers.
        total: The number of annotations, including those that were left out.
        where: The file or folder of the annotations, for messages.
        defects: What was wrong by now.
        notes: Further lines for the user.
    """

    images: Iterator[RawImage] | list[RawImage]
    class_names: tuple[str, ...]
    total: int
    where: str
    defects: Defects
    notes: tuple[str, ...] = ()
