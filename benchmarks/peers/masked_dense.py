"""FCMAE on dense images with masked positions set to zero.

This is what people use in place of sparse convolution. It computes what the visible tiles compute,
at all positions: channels-last, with a multiplication before and after each depthwise convolution,
and GRN over the visible positions. It wraps a `convnextv2.FCMAE` and uses its weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnextv2.model.fcmae import FCMAE, normalise_tiles
from convnextv2.model.layers import Block
from convnextv2.model.tiles import fold


def encode(block: Block, x: Tensor, mask: Tensor) -> Tensor:
    """Compute a block on dense (N, H, W, C) with a mask (N, H, W, 1), which is 1 where visible."""
    y = block.norm(block.dwconv(x * mask) * mask)
    y = F.gelu(block.pwconv1(y), approximate=block.gelu_form)
    norm = torch.linalg.vector_norm((y * mask).float(), dim=(1, 2), keepdim=True)
    scale = 1 + block.grn.gamma * (norm / (norm.mean(-1, keepdim=True) + block.grn.eps))
    return x + block.pwconv2(torch.addcmul(block.grn.beta.to(y.dtype), y, scale.to(y.dtype)))


class MaskedDense(nn.Module):
    """The loss of an FCMAE, computed densely."""

    def __init__(self, model: FCMAE) -> None:
        super().__init__()
        self.model = model

    def encoded(self, images: Tensor, visible: Tensor) -> Tensor:
        """Compute the last feature map, which is right at the visible positions.

        Args:
            images: (N, C, H, W).
            visible: (N, V), the numbers of the visible tiles.

        Returns:
            (N, h, w, dims[3]).
        """
        encoder, cell = self.model.encoder, self.model.cell
        rows, columns = images.shape[2] // cell, images.shape[3] // cell
        tiles = torch.zeros(len(images), rows * columns, device=images.device).scatter_(
            1, visible, 1.0
        )
        tiles = tiles.view(-1, rows, columns, 1)
        x = images.permute(0, 2, 3, 1)
        for downsample, stage in zip(encoder.downsample_layers, encoder.stages, strict=True):
            x = downsample(x)
            side = x.shape[1] // rows
            mask = tiles.repeat_interleave(side, 1).repeat_interleave(side, 2).to(x.dtype)
            for block in stage:
                x = encode(block, x, mask)
        return x

    def forward(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Compute the same loss as `FCMAE.forward`."""
        model = self.model
        x = model.proj(self.encoded(images, visible))
        n, rows, columns, _ = x.shape
        shown = (
            torch.zeros(n, rows * columns, device=x.device)
            .scatter_(1, visible, 1.0)
            .view(n, rows, columns, 1)
            .to(x.dtype)
        )
        x = x * shown + model.mask_token.to(x.dtype) * (1 - shown)
        for block in model.decoder:
            x = block(x)
        predictions = model.pred(x)
        targets = normalise_tiles(fold(images.permute(0, 2, 3, 1).float(), model.cell))
        errors = (predictions.float() - targets).square().mean(-1).flatten(1)
        return errors.gather(1, masked).mean()


def check(model: FCMAE, images: Tensor, visible: Tensor, masked: Tensor) -> float:
    """Return the relative difference of the losses. If it is not small, a comparison is void."""
    with torch.no_grad():
        ours, dense = model(images, visible, masked), MaskedDense(model)(images, visible, masked)
    return float((ours - dense).abs() / ours)
