"""Chance: where all randomness of the data comes from.

A random choice is a function of its key, such as (seed, "image", epoch, index, copy). It never
depends on the number of workers or on what ran before. Generators are PyTorch's, on the CPU.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch


def stream(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the key alone, on every machine and in any process."""
    # Python salts hash() in each process.
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
    """Draw a whole number from [low, high), which excludes high."""
    return int(torch.randint(low, high, (), generator=generator))


def happens(generator: torch.Generator, probability: float) -> bool:
    """Return True with this probability. One draw is made whatever the probability is."""
    return uniform(generator) < probability


def dirichlet(generator: torch.Generator, *alphas: float) -> list[float]:
    """Draw shares that sum to 1. With two equal alphas, the first one is Beta(alpha, alpha)."""
    # torch draws from Beta and Dirichlet by its global generator only.
    return [
        float(share)
        for share in np.random.default_rng(integer(generator, 0, 2**63 - 1)).dirichlet(alphas)
    ]
