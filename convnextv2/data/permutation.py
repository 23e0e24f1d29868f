"""A random permutation of any length whose entries are computed on demand, and never stored."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

_ROUNDS = 6


class Permutation:
    """A keyed permutation of the numbers from 0 to length - 1, in constant memory.

    `torch.randperm` lists a whole permutation. This class computes any entry alone, and entry i of
    a permutation of length 1.3 billion takes as long as that of one of length ten. The permutations
    are well mixed, but not all permutations can occur, and they are not cryptographically secure.

    A number below a * b is split into two parts, one below a and one below b. Each of six rounds
    adds to one part a hash of the other. A round can be inverted, so the map is one-to-one. The
    product a * b is slightly larger than the length. A result that is not below the length goes
    through the rounds again until it is, which keeps the map one-to-one (cycle walking). Source:
    Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", the generalised Feistel
    construction. The hash is the finaliser of SplitMix64 (Steele et al. 2014), with a key for each
    round.

    Attributes:
        length: The number of entries, at least 1.
    """

    def __init__(self, length: int, generator: torch.Generator) -> None:
        """Draw the keys of the rounds from a generator.

        Args:
            length: The number of entries, from 1 to 2**62.
            generator: A generator on the CPU.
        """
        assert 0 < length <= 2**62
        self.length = length
        root = math.isqrt(length - 1) + 1  # the square root, rounded up
        self._sides = np.uint64(root), np.uint64(-(-length // root))
        draws = torch.randint(-(2**63), 2**63 - 1, (_ROUNDS,), generator=generator)
        self._keys = draws.numpy().view(np.uint64)

    def __len__(self) -> int:
        return self.length

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the entries at some places of the permutation.

        Args:
            places: int64 (K,), each from 0 to length - 1.

        Returns:
            int64 (K,), each from 0 to length - 1. Different places give different entries.
        """
        entries = self._rounds(places.astype(np.uint64))
        while (outside := np.flatnonzero(entries >= np.uint64(self.length))).size:
            entries[outside] = self._rounds(entries[outside])
        return entries.view(np.int64)

    def _rounds(self, numbers: Numbers) -> Numbers:
        """Apply the rounds to numbers below the product of the two sides."""
        left, right = numbers % self._sides[0], numbers // self._sides[0]
        for number, key in enumerate(self._keys):
            left, right = (
                right,
                (left + _hash(right, key) % self._sides[number % 2]) % self._sides[number % 2],
            )
        return self._sides[0] * right + left


def _hash(numbers: Numbers, key: np.uint64) -> Numbers:
    """Hash numbers with a key. Arithmetic is modulo 2**64."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
