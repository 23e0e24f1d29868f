"""Write a last checkpoint when an error ends training."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.distributed import Place
from convnextv2.errors import Stopped, TrainingError
from convnextv2.training.keeper import Keeper
from convnextv2.training.state import Progress
from convnextv2.training.window import Window


@dataclass
class Rescue:
    """Writes a checkpoint if an error ends the loop, so that no step is lost.

    Attributes:
        keeper: Writes the checkpoint.
        window: The losses since the last line of the log, which are saved with the checkpoint.
        progress: The position of the run.
        place: This rank.
        is_whole: Whether weights, average and optimizer all belong to `progress.step`. The loop
            sets it to False during an update, in which nothing can be saved.
    """

    keeper: Keeper
    window: Window
    progress: Progress
    place: Place
    is_whole: bool = True

    def __enter__(self) -> Rescue:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or not self.is_whole:
            return
        # Any other error may have come on one rank only, and the others would not take part.
        if self.keeper.needs_all_ranks and not isinstance(error, Stopped | TrainingError):
            error.add_note(
                "The steps since the last checkpoint are not saved: a sharded run is saved by all "
                "ranks together."
            )
            return
        try:
            if self.place.world_size == 1:
                self.window.settle(self.place)
            self.window.remember(self.progress)
            self.keeper.save(wait=True)
        except (OSError, TrainingError) as failure:  # the disk itself may have failed
            why = f" ({str(failure).rstrip('.')})" if str(failure) != str(error) else ""
            error.add_note(f"The steps since the last checkpoint are not saved{why}.")
