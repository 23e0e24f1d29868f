"""Admission control: decide which requests are accepted, and which are answered with 429.

It counts the images that wait, over all models. The images themselves wait in `batcher`.
"""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

_SHARE_OF_DEADLINE = 0.5
"""The share of the deadline that images may be expected to wait.

The models share the processor with decoding, so the wait may be twice as long as the pace
suggests."""


@dataclass
class Admission:
    """Counts the images that wait, over all models, which bounds the memory that they take.

    Attributes:
        limits: The server's limits.
        waiting: The number of images that wait.
        pace: The moving average of images scored per second; 0 before the first batch.
    """

    limits: Limits
    waiting: int = 0
    pace: float = 0.0

    def check(self, images: int) -> None:
        """Check that there is room in the queue.

        Args:
            images: The number of images to add.

        Raises:
            Refusal: There is no room for them, or they would wait too long.
        """
        if self.waiting + images > self.limits.max_queue:
            raise Refusal(
                429,
                "queue_full",
                f"{self.waiting} images wait, and at most {self.limits.max_queue} may. Try again "
                "later.",
                1,
            )
        wait_s = (self.waiting + images) / self.pace if self.pace and self.waiting else 0.0
        if wait_s > _SHARE_OF_DEADLINE * self.limits.deadline_s:
            raise Refusal(
                429,
                "queue_full",
                f"{self.waiting} images wait, for about {wait_s:.0f} s. Try again later.",
                1,
            )

    def reserve(self, images: int) -> None:
        """Add images to the queue. Raises Refusal as `check` does."""
        self.check(images)
        self.waiting += images

    def release(self, images: int) -> None:
        """Remove images from the queue."""
        self.waiting -= images

    def update_pace(self, images: int, seconds: float) -> None:
        """Update the pace.

        Args:
            images: The size of a batch.
            seconds: The time that a model took for it.
        """
        pace = images / max(seconds, 1e-6)
        self.pace = pace if not self.pace else 0.9 * self.pace + 0.1 * pace
