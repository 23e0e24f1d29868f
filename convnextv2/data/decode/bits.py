"""Reads numbers of a few bits."""

from __future__ import annotations


class Bits:
    """Reads bits from bytes, beginning with the highest bit of the first byte.

    Reading past the end raises ValueError.
    """

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("ends too early")
        return self._number >> self._left & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Skip `count` bits."""
        self.take(count)
