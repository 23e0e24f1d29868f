"""The queue of all images that wait, which cannot grow without end."""

from __future__ import annotations

from dataclasses import dataclass

from convnextv2.server.limits import Limits
from convnextv2.server.refusal import Refusal

_SHARE_OF_DEADLINE = 0.5
"""How much of the deadline images may be expected to wait: the model shares the processor with decoding, so the wait may be twice
what its pace says."""


@dataclass
class Queue:
    """Images that wait, over all models of a server, so that one bound holds for its memory."""

    limits: Limits
    waiting: int = 0
    pace: float = 0.0

    def check(self, images: int) -> None:
        """Raises Refusal where there is no room for so many, or where they would wait for longer than the deadline."""
        if self.waiting + images > self.limits.max_queue:
            raise Refusal(
                429,
                "queue_full",
                f"{self.waiting} images are waiting, {self.limits.max_queue} may. Try again later.",
                1,
            )
        wait_s = (self.waiting + images) / self.pace if self.pace and self.waiting else 0.0
        if wait_s > _SHARE_OF_DEADLINE * self.limits.deadline_s:
            raise Refusal(
                429,
                "queue_full",
                f"{self.waiting} images are waiting, for about {wait_s:.0f} s. Try again later.",
                1,
            )

    def take(self, images: int) -> None:
        """Make room for so many. Raises Refusal as `check` does."""
        self.check(images)
        self.waiting += images

    def finished(self, images: int, seconds: float) -> None:
        """A model took so long for so many images; pace is the moving average of images/s."""
        pace = images / max(seconds, 1e-6)
        self.pace = pace if not self.pace else 0.9 * self.pace + 0.1 * pace

    def give_back(self, images: int) -> None:
        """They wait no more."""
        self.waiting -= images
