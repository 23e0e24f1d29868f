"""The change in a model's outputs in a library that computes them slightly differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.names import is_version_1, library_of
from convnextv2.weights.timm_config import timm_eps

_FIXED: dict[str, dict[str, Any]] = {
    "official": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "timm": {},
    "transformers": {"inner_eps": 1e-6},
    "mmpretrain": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "mindcv": {"gelu": "tanh", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "torchvision": {"gelu": "exact", "norm_eps": 1e-6, "inner_eps": 1e-6},
    "dinov3": {},
}
"""Arguments that a library fixes, since its checkpoints cannot store another value."""
_ONE_EPS = ("timm", "dinov3")
"""Libraries whose configuration has one epsilon for all norms."""


def fixed_by(model: ConvNeXtV2, target: str, *, is_file: bool) -> dict[str, Any]:
    """Return the arguments that the target fixes, independent of the model's own."""
    fixed = dict(_FIXED[library_of(target)])
    if model.block == "v2" and not is_version_1(target):
        fixed["grn_scope"] = "image"
    if library_of(target) in _ONE_EPS and model.norm is not None:
        # A file has no configuration, so the library builds the network with its default epsilon.
        eps = timm_eps(model.depths) if is_file else model.arguments["norm_eps"]
        fixed |= {"norm_eps": eps, "inner_eps": eps}
    return fixed


@dataclass(frozen=True)
class Drift:
    """The change in a model's outputs with other arguments.

    Attributes:
        largest: The largest difference on random images, computed in float64.
        rounding: The largest difference that computing in float32 makes on the same images.
    """

    largest: float
    rounding: float


def measure_drift(model: ConvNeXtV2, fixed: Mapping[str, Any]) -> Drift | None:
    """Measure how much a model's outputs change with other arguments.

    Args:
        model: The model; it is left as it is.
        fixed: The arguments of `ConvNeXtV2` that take the place of the model's own.

    Returns:
        The differences; None if the arguments are the model's own.
    """
    if not what_changes(model.arguments, fixed):
        return None
    generator = torch.Generator().manual_seed(0)
    side = 4 * model.total_stride
    images = torch.randn(4, model.in_channels, side, side, dtype=torch.float64, generator=generator)

    def outputs(arguments: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
        """Compute the outputs with other arguments. Only one copy of the weights exists then."""
        with torch.device("meta"):
            network = ConvNeXtV2(**{**model.arguments, **arguments})
        network.load_state_dict(model.state_dict(), assign=True)
        with torch.inference_mode():
            found: Tensor = network.to(dtype).eval()(images.to(dtype))
            return found.double()

    exact = outputs({}, torch.float64)
    changed, rounded = outputs(fixed, torch.float64), outputs({}, torch.float32)
    return Drift(float((exact - changed).abs().max()), float((exact - rounded).abs().max()))


def what_changes(arguments: Mapping[str, Any], fixed: Mapping[str, Any]) -> str:
    """Return text that names the arguments that differ; empty if none does."""
    arguments = {"inner_eps": 1e-6, **arguments}
    return ", ".join(
        f"{name} {value}, not {arguments[name]}"
        for name, value in fixed.items()
        if arguments[name] != value
    )
