"""Slow references: masked-dense FCMAE and submanifold convolution.

They are written from the definitions, with none of the package's layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Every parameter random, GRN and LayerNorm too: zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
            )
    return module


def visible_map(visible: Tensor, grid: tuple[int, int], height: int, width: int) -> Tensor:
    """(N, 1, height, width), 1 at positions of visible tiles and 0 elsewhere."""
    n = visible.shape[0]
    seen = torch.zeros(n, grid[0] * grid[1], dtype=torch.float64)
    for image in range(n):
        for index in visible[image].tolist():
            seen[image, index] = 1
    seen = seen.view(n, 1, *grid)
    return seen.repeat_interleave(height // grid[0], 2).repeat_interleave(width // grid[1], 3)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Over the channels of (N, C, H, W)."""
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def grn(x: Tensor, gamma: Tensor, beta: Tensor, seen: Tensor) -> Tensor:
    """Compute GRN over the seen positions of each image of (N, C, H, W).

    The sum of squares is above 0 in these tests.
    """
    norm = ((x * seen) ** 2).sum((2, 3), keepdim=True).sqrt()
    ratio = norm / (norm.mean(1, keepdim=True) + 1e-6)
    return gamma.view(1, -1, 1, 1) * (x * ratio) + beta.view(1, -1, 1, 1) + x


def block(x: Tensor, weights: dict[str, Tensor], prefix: str, seen: Tensor) -> Tensor:
    w = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    y = (
        F.conv2d(x * seen, w["dwconv.weight"], w["dwconv.bias"], padding=3, groups=x.shape[1])
        * seen
    )
    y = layer_norm(y, w["norm.weight"], w["norm.bias"])
    y = F.conv2d(y, w["pwconv1.weight"][:, :, None, None], w["pwconv1.bias"])
    y = grn(y * 0.5 * (1 + torch.erf(y / 2**0.5)), w["grn.gamma"], w["grn.beta"], seen)
    return x + F.conv2d(y, w["pwconv2.weight"][:, :, None, None], w["pwconv2.bias"])


def masked_dense_encoder(
    images: Tensor,
    weights: dict[str, Tensor],
    depths: tuple[int, ...],
    stem_stride: int,
    visible: Tensor,
    grid: tuple[int, int],
):
    """Compute the official encoder on a dense image.

    Masked positions are set to zero before and after each depthwise convolution. Returns
    (N, 8c, h, w).
    """
    x = images
    for stage, depth in enumerate(depths):
        prefix = f"downsample_layers.{stage}."
        if stage == 0:
            x = F.conv2d(
                x, weights[prefix + "0.weight"], weights[prefix + "0.bias"], stride=stem_stride
            )
            x = layer_norm(x, weights[prefix + "1.weight"], weights[prefix + "1.bias"])
        else:
            x = layer_norm(x, weights[prefix + "0.weight"], weights[prefix + "0.bias"])
            x = F.conv2d(x, weights[prefix + "1.weight"], weights[prefix + "1.bias"], stride=2)
        seen = visible_map(visible, grid, *x.shape[2:])
        x = x * seen
        for j in range(depth):
            x = block(x, weights, f"stages.{stage}.{j}.", seen)
    return x * seen


def submanifold_depthwise(x: Tensor, weight: Tensor, bias: Tensor, seen: Tensor) -> Tensor:
    """Convolve each channel of one image (C, H, W) by loops over its seen positions.

    There is output only there, and it is computed only from there.
    """
    channels, height, width = x.shape
    kernel = weight.shape[-1]
    out = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            if not seen[row, column]:
                continue
            total = bias.clone()
            for dy in range(kernel):
                for dx in range(kernel):
                    r, c = row + dy - kernel // 2, column + dx - kernel // 2
                    if 0 <= r < height and 0 <= c < width and seen[r, c]:
                        total = total + x[:, r, c] * weight[:, 0, dy, dx]
            out[:, row, column] = total
    return out
