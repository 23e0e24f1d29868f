"""The images that the certificate of a dense artifact is measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from convnextv2.data.source import Source
from convnextv2.errors import DataError
from convnextv2.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class SourceEvidence:
    """The images that an artifact is measured on.

    Attributes:
        source: The images. If they have annotations, the figures of both models are measured.
        origin: Where they come from, in words.
        seconds: How long the comparison of speeds takes, in seconds.
    """

    source: Source
    origin: str
    seconds: float

    def readable(self, how: Preprocessing, most: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the index and the pixels of the images that can be read.

        Args:
            how: Says how many channels to decode, and which values are black and white.
            most: The largest number of images; None for all.
        """
        count = 0
        for index in range(len(self.source)):
            try:
                pixels = self.source.pixels(index, how.channels, how.value_range)
            except DataError:
                continue
            yield index, pixels
            count += 1
            if count == most:
                return
