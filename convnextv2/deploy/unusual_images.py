"""Make the unusual images on which an artifact is compared with its model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from convnextv2.deploy.graph import Graph

_EPSILON = 4
"""The change of each pixel of an adversarial image, in levels of 255."""


def stress_images(like: Tensor) -> Tensor:
    """Make images unlike any photograph.

    They are black, white, noise, checkerboards and stripes of full contrast, one white pixel, and
    images in which only one channel is not black.

    Args:
        like: Images of the wanted shape (N, C, H, W).

    Returns:
        The images, uint8 (M, C, H, W).
    """
    channels, height, width = like.shape[1:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    black = torch.zeros(height, width)
    planes = [
        black,
        black + 1,
        ((rows + columns) % 2).float(),
        ((rows // 4 + columns // 4) % 2).float(),
        (rows % 2 + 0 * columns).float(),
        ((rows == height // 2) & (columns == width // 2)).float(),
    ]
    images = torch.stack(planes)[:, None].repeat(1, channels, 1, 1) * 255
    noise = torch.randint(
        0, 256, (2, channels, height, width), generator=torch.Generator().manual_seed(0)
    )
    alone = torch.zeros(channels, channels, height, width)
    alone[range(channels), range(channels)] = 255
    return torch.cat([images, noise.float(), alone]).to(torch.uint8)


def adversarial_images(
    reference: Graph, pixels: Tensor, normalise: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change images slightly so that the two best classes become closer.

    Small differences between the model and the artifact are most visible there. Source: the fast
    gradient sign method of Goodfellow et al. 2015.

    Args:
        reference: A classifier.
        pixels: Real images, uint8 (N, C, H, W).
        normalise: Turns pixels into images.

    Returns:
        The changed images, uint8 (N, C, H, W).
    """
    model = reference.model
    start = normalise(pixels).clone().requires_grad_()
    with torch.enable_grad():
        best = model(start).topk(min(2, model.num_classes or 1), dim=-1).values
        (gradient,) = torch.autograd.grad((best[:, 0] - best[:, -1]).sum(), start)
    return (pixels.float() - _EPSILON * gradient.sign()).round().clamp(0, 255).to(torch.uint8)


def resized_by(pixels: Tensor, stride: int) -> Tensor:
    """Make images larger by mirroring them at their edges.

    Args:
        pixels: The images (N, C, H, W).
        stride: The number of pixels to add.

    Returns:
        The images, one stride higher and two strides wider.
    """
    height, width = pixels.shape[2] + stride, pixels.shape[3] + 2 * stride
    rows, columns = (
        torch.cat([torch.arange(size), torch.arange(size).flip(0)]).repeat(wanted // size + 1)[
            :wanted
        ]
        for size, wanted in ((pixels.shape[2], height), (pixels.shape[3], width))
    )
    return pixels[:, :, rows][..., columns]
