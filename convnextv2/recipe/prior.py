"""The option `prior` of verbs that use a classifier."""

from __future__ import annotations

from typing import Literal

Prior = Literal["trained", "natural", "balanced"] | float
"""The class frequencies that probabilities assume; see `evaluation.prior.prior_shift`."""
