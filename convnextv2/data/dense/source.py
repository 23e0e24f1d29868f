"""Sources whose images have annotations, such as label maps or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.source import Source


class Sample(NamedTuple):
    """A prepared image and its target.

    Attributes:
        pixels: uint8 (C, H, W).
        target: The prepared annotation. The `collate` of a loader joins those of a batch.
    """

    pixels: Tensor
    target: Any


class Annotations(Protocol):
    """The annotations of the images of a source, by index. They are copied to worker processes."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> Any:
        """Read the annotation of an image.

        Raises:
            StorageError: The storage of its file is out of reach.
            DataError: The annotation cannot be read. The message names it.
        """

    def take(self, indices: NDArray[np.int64]) -> Annotations:
        """Return the annotations at these indices, in this order."""

    def is_out_of_reach(self, index: int) -> bool:
        """Return whether an annotation cannot be read because its storage is out of reach."""


@dataclass(frozen=True, eq=False)
class AnnotatedSource(Source):
    """Images with annotations.

    Attributes:
        annotations: The annotation of each image. It holds no open file.
    """

    annotations: Annotations | None = None

    def annotation(self, index: int) -> Any:
        """Read the annotation of an image; see `Annotations.__getitem__`."""
        assert self.annotations is not None
        return self.annotations[index]

    def is_out_of_reach(self, index: int) -> bool:
        """Return whether the storage of an image or of its annotation is out of reach."""
        assert self.annotations is not None
        return super().is_out_of_reach(index) or self.annotations.is_out_of_reach(index)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> AnnotatedSource:
        """Return the images at these indices, in this order."""
        assert self.annotations is not None
        chosen = np.asarray(indices, np.int64)
        part = super().subset(chosen)
        assert isinstance(part, AnnotatedSource)
        return replace(part, annotations=self.annotations.take(chosen))
