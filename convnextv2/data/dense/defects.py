"""Counts the defects of annotated images by kind, with a few examples of each."""

from __future__ import annotations

from enum import Enum

from convnextv2.text import plain

_EXAMPLES = 3
_LONGEST = 200
"""The number of characters of an example that are shown."""


class Defect(Enum):
    """A kind of defect: its description in the singular and the plural, and its treatment."""

    NO_AREA = ("box without area", "boxes without area", "left out")
    OUTSIDE = ("box outside its image", "boxes outside their images", "left out")
    BEYOND = (
        "box beyond the edge of its image",
        "boxes beyond the edge of their images",
        "clipped",
    )
    NOT_FINITE = (
        "box with coordinates that are not numbers",
        "boxes with coordinates that are not numbers",
        "left out",
    )
    MISSING_FILE = ("image that is not there", "images that are not there", "left out")
    MISSING_IMAGE = (
        "annotation of an image that is not listed",
        "annotations of images that are not listed",
        "left out",
    )
    NO_IMAGE = (
        "file of annotations without an image",
        "files of annotations without images",
        "left out",
    )
    COPY = (
        "object that is the copy of another one",
        "objects that are copies of others",
        "kept, so each of them counts",
    )
    TWICE = ("image listed twice", "images listed twice", "used once, with the objects of both")
    UNKNOWN_CLASS = (
        "object of a class that is not declared",
        "objects of classes that are not declared",
        "left out",
    )
    MALFORMED = ("annotation that cannot be read", "annotations that cannot be read", "left out")
    SHORT_OUTLINE = (
        "outline of fewer than 3 points",
        "outlines of fewer than 3 points",
        "left out; the box stays",
    )
    FAR_OUTLINE = (
        "outline with points far outside its image",
        "outlines with points far outside their images",
        "left out; the box stays",
    )
    WRONG_MASK = (
        "mask whose size is not that of its image",
        "masks whose sizes are not those of their images",
        "left out with the object",
    )
    EMPTY_MASK = ("mask without a pixel", "masks without a pixel", "left out with the object")
    OTHER_SIZE = (
        "image whose size is not the one that its annotation states",
        "images whose sizes are not the ones that their annotations state",
        "left out, since it is unknown what the boxes refer to",
    )
    TURNED = (
        "image that EXIF rotates, with boxes for the pixels as stored",
        "images that EXIF rotates, with boxes for the pixels as stored",
        "the boxes are rotated too",
    )
    MAYBE_TURNED = (
        "image that EXIF rotates, and no stated size tells whether its boxes are rotated",
        "images that EXIF rotates, and no stated sizes tell whether their boxes are rotated",
        "the boxes are taken to refer to the upright image",
    )
    OTHER_NAME = (
        "image whose name differs from the annotation in letter case or ending",
        "images whose names differ from the annotation in letter case or ending",
        "found nevertheless",
    )
    STALE_NAME = (
        "file of annotations that names an image with another name than its own",
        "files of annotations that name images with other names than their own",
        "the image with the name of the file is used",
    )
    SHARED_LABELS = (
        "image that shares its text file with another one",
        "images that share their text files with others",
        "each of them has the objects in the file",
    )
    DIFFICULT = (
        "object marked as difficult",
        "objects marked as difficult",
        "ignored in training and in evaluations",
    )
    NO_MASK = (
        "object without a mask among objects that have one",
        "objects without a mask among objects that have one",
        "the box is used as the mask",
    )


class Defects:
    """Collects the defects of annotations.

    Attributes:
        counts: The number of defects of each kind.
    """

    def __init__(self) -> None:
        self.counts: dict[Defect, int] = {}
        self._examples: dict[Defect, list[str]] = {}

    def add(self, kind: Defect, where: str, count: int = 1) -> None:
        """Count a defect.

        Args:
            kind: The kind of defect.
            where: The image or the file, so that the user can find the defect.
            count: The number of such defects at this place.
        """
        if not count:
            return
        self.counts[kind] = self.counts.get(kind, 0) + count
        examples = self._examples.setdefault(kind, [])
        if where not in examples and len(examples) <= _EXAMPLES:
            examples.append(where)

    def lines(self, head: str) -> list[str]:
        """Return one line for each kind of defect.

        Args:
            head: The beginning of each line, such as the name of the split.
        """
        lines = []
        for kind, count in self.counts.items():
            one, several, done = kind.value
            what = f"{count:,} {one if count == 1 else several}"
            shown = [plain(each[:_LONGEST]) for each in self._examples[kind][:_EXAMPLES]]
            more = ["..."] * (len(self._examples[kind]) > _EXAMPLES)
            lines.append(f"{head}: {what}: {done} ({', '.join(shown + more)}).")
        return lines
