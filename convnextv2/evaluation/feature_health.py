"""The health of an encoder's features, layer by layer, on some images.

A layer is a block. Diversity is that of the paper (arXiv 2301.00808, section 4): the cosine
distance of pairs of channels in the expanded features of a block. Networks that are pre-trained
with masks but without GRN lose it, because many channels become alike, dead or saturated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import Block

DEAD = 0.01
"""A channel is dead if its RMS is below this share of its layer's, the RMS over all channels."""
SATURATED = 0.05
"""A channel is saturated if it is not dead and its deviation is below this share of its RMS."""
_BATCH = 16


@dataclass(frozen=True)
class LayerHealth:
    """The figures of one block.

    Attributes:
        name: Its stage and its position in the stage, both from 1, such as "3.2".
        diversity: The mean cosine distance of channels, from 0 (all alike) to 0.5 (unrelated), in
            the expanded features after GRN. Channels that are 0 everywhere do not count.
        dead: The share of expanded channels that are dead.
        saturated: The share of expanded channels that are saturated, which means almost constant.
        effective_rank: The effective rank of the block's outputs, divided by their channels.
        grn_gamma: The mean of GRN's |gamma|; None without GRN.
        grn_beta: The mean of GRN's |beta|; None without GRN.
    """

    name: str
    diversity: float
    dead: float
    saturated: float
    effective_rank: float
    grn_gamma: float | None
    grn_beta: float | None


def diversity(maps: Tensor) -> Tensor:
    """Compute the mean cosine distance over all pairs of channels, for each image.

    The mean of (1 - cos) / 2 over all pairs, a channel with itself included, is (1 - |m|^2) / 2,
    where m is the mean of the channels' unit vectors.

    Args:
        maps: (N, P, C), the values of C channels at P positions.

    Returns:
        float64 (N,). Channels that are 0 everywhere are left out; NaN if all are.
    """
    maps = _double(maps)
    norms = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    alive = norms > 0
    units = torch.where(alive, maps / norms.clamp(min=torch.finfo(maps.dtype).tiny), 0)
    mean = units.sum(2) / alive.sum(2)
    return (1 - mean.square().sum(1)) / 2


def effective_rank(covariance: Tensor) -> float:
    """Compute the effective rank (Roy and Vetterli 2007) of centred features.

    It is the exponential of the entropy of the singular values, divided by their sum.

    Args:
        covariance: float64 (C, C), symmetric.

    Returns:
        A number from 1 to C; NaN if the features are constant or not finite.
    """
    if not covariance.isfinite().all():
        return float("nan")
    roots = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
    if not roots.sum() > 0:
        return float("nan")
    shares = roots / roots.sum()
    return float(torch.special.entr(shares).sum().exp())


class _Totals:
    """The sums over images for one block."""

    def __init__(self, channels: int) -> None:
        self.images = self.positions = 0
        self.diversity = 0.0
        self.first = torch.zeros(4 * channels, dtype=torch.float64)
        self.second = torch.zeros(4 * channels, dtype=torch.float64)
        self.out = torch.zeros(channels, dtype=torch.float64)
        self.products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, before: Tensor, after: Tensor, output: Tensor) -> None:
        self.images += len(before)
        self.diversity += float(diversity(after.flatten(1, 2)).sum())
        wide, out = _double(before.flatten(0, 2)), _double(output.flatten(0, 2))
        self.positions += len(wide)
        self.first += wide.sum(0).cpu()
        self.second += wide.square().sum(0).cpu()
        self.out += out.sum(0).cpu()
        self.products += (out.T @ out).cpu()

    def health(self, name: str, block: Block) -> LayerHealth:
        mean, square = self.first / self.positions, self.second / self.positions
        rms, layer = square.sqrt(), square.mean().sqrt()
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        dead = rms < DEAD * layer
        saturated = ~dead & (deviation < SATURATED * rms)
        centre = self.out / self.positions
        covariance = self.products / self.positions - torch.outer(centre, centre)
        gamma, beta = (None, None) if block.grn is None else (block.grn.gamma, block.grn.beta)
        return LayerHealth(
            name,
            self.diversity / self.images,
            float(dead.double().mean()),
            float(saturated.double().mean()),
            effective_rank(covariance) / len(centre),
            None if gamma is None else float(gamma.detach().abs().mean()),
            None if beta is None else float(beta.detach().abs().mean()),
        )


def _double(features: Tensor) -> Tensor:
    """Convert features to float64, on the CPU if their device has no float64."""
    return (features.cpu() if features.device.type == "mps" else features).double()


def layer_names(encoder: ConvNeXtV2) -> list[str]:
    """Return the names of the blocks: stage and position in the stage, both from 1."""
    return [f"{i}.{j}" for i, depth in enumerate(encoder.depths, 1) for j in range(1, depth + 1)]


def examine_layers(encoder: ConvNeXtV2, images: Tensor) -> list[LayerHealth]:
    """Compute the figures of every block on unmasked images, as in fine-tuning.

    Args:
        encoder: The encoder, in evaluation mode.
        images: float32 (N, C, H, W), normalised, on the encoder's device.

    Returns:
        The figures of each block, in order.
    """
    totals: list[_Totals] = []
    blocks: list[Block] = []
    with torch.no_grad():
        for part in images.split(_BATCH):
            for i, (block, x, output) in enumerate(_run_blocks(encoder, part)):
                if i == len(totals):
                    totals.append(_Totals(output.shape[-1]))
                    blocks.append(block)
                totals[i].add(*block.expanded(x), output)
    named = zip(layer_names(encoder), totals, blocks, strict=True)
    return [each.health(name, block) for name, each, block in named]


def _run_blocks(encoder: ConvNeXtV2, images: Tensor) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Yield each block with its input and its output, (N, H, W, C)."""
    x = images.permute(0, 2, 3, 1)
    for downsample, stage in zip(encoder.downsample_layers, encoder.stages, strict=True):
        x = downsample(x)
        blocks: Iterable[Block] = stage  # type: ignore[assignment]  # a ModuleList of ModuleLists
        for block in blocks:
            output = block(x)
            yield block, x, output
            x = output
