"""The entries that the evaluations of all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.data.notices import evaluation_notes
from convnextv2.data.source import Source
from convnextv2.weights.description import Description


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluated:
    """A network that was evaluated, and the images that it was evaluated on.

    Attributes:
        source: The images.
        description: The description of the network.
        parameters: The number of parameters.
        skipped: The names of the images that were left out.
    """

    source: Source
    description: Description
    parameters: int
    skipped: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return lines for the user about the images."""
        return evaluation_notes(self.source.notes, self.skipped)
