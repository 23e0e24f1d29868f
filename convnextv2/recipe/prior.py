"""The option `prior` of verbs that use a classifier."""

from __future__ import annotations

from typing import Literal

Prior = Literal["trained", "natural", "balanced"] | float
"""Frequencies of the classes for which probabilities hold; see `evaluation.prior.prior_shift`."""
