"""Random generators that depend only on a key, and draws from them.

A key is a tuple such as (seed, "image", epoch, index, copy). A random choice therefore depends
neither on the number of workers nor on what was drawn before. All generators are on the CPU.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch


def generator_for(*key: int | str) -> torch.Generator:
    """Return a generator whose seed is a hash of the key, the same on every machine.

    Args:
        key: Numbers and words, such as seed, "image", epoch, index and copy.
    """
    # hash() cannot be used, because Python salts it in each process.
    digest = hashlib.blake2b(
        repr(tuple(part if isinstance(part, str) else int(part) for part in key)).encode(),
        digest_size=8,
    ).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """Draw a number from [low, high)."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))


def log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw a number from [low, high), both positive, whose logarithm is uniform."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def normal(generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> float:
    """Draw a number from the normal distribution."""
    return mean + std * float(torch.randn((), dtype=torch.float64, generator=generator))


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """Draw an integer from [low, high)."""
    return int(torch.randint(low, high, (), generator=generator))


def happens(generator: torch.Generator, probability: float) -> bool:
    """Return True with this probability. It takes one draw, even for probabilities 0 and 1."""
    return uniform(generator) < probability


def dirichlet(generator: torch.Generator, *alphas: float) -> list[float]:
    """Draw from the Dirichlet distribution: one share for each alpha, with the sum 1.

    With two equal alphas, the first share has the distribution Beta(alpha, alpha).
    """
    # torch draws from Beta and Dirichlet with its global generator only.
    return [
        float(share)
        for share in np.random.default_rng(integer(generator, 0, 2**63 - 1)).dirichlet(alphas)
    ]
