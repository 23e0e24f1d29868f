"""FCMAE, fully convolutional masked autoencoder (arXiv 2301.00808, section 3): masks, target, decoder, loss.

Differences from the official PyTorch code, each on purpose: GRN per image over visible positions (there: over the whole batch),
standard deviation 0.02 for every initial weight (there: 1.0 for most), any image size and number of channels
(docs/decisions/0001). Tensors are named as in the official pre-training checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnextv2.errors import ConvNeXtV2Error
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import Block, PatchConv, full_precision, init_weights
from convnextv2.model.tiles import Tiles, fold, unfold


def visible_count(tiles: int, mask_ratio: float) -> int:
    """How many of `tiles` stay visible: int(tiles * (1 - mask_ratio)), as in the official code, but at least 1 and, where
    anything is masked, at most tiles - 1."""
    if mask_ratio == 0:
        return tiles
    return max(1, min(int(tiles * (1 - mask_ratio)), tiles - 1))


def draw_masks(
    n: int, grid: tuple[int, int], mask_ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random choice of visible tiles for each of n images: sorted indices, visible int64 (n, V) and masked int64 (n, L - V), on
    CPU.

    generator: a CPU generator, so that one seed gives one mask on every device."""
    tiles = grid[0] * grid[1]
    order = torch.rand(n, tiles, generator=generator).argsort(dim=1)
    visible = visible_count(tiles, mask_ratio)
    return order[:, :visible].sort(dim=1).values, order[:, visible:].sort(dim=1).values


def normalise_tiles(pixels: Tensor, eps: float = 1e-6) -> Tensor:
    """Each row of (..., D) less its mean, divided by sqrt(unbiased variance + eps)."""
    # Layer norm, in one pass, divides by the biased deviation: that is the unbiased one times sqrt(1 - 1 / D).
    share = 1 - 1 / pixels.shape[-1]
    return F.layer_norm(pixels, pixels.shape[-1:], eps=eps * share) * share**0.5


class FCMAE(nn.Module):
    """Masked autoencoder around a bare encoder (`num_classes=None`).

    Args:
        encoder: A `ConvNeXtV2` without head and final norm.
        tile: Side in px of what is seen or hidden as a whole, a multiple of the encoder's total
            stride; by default equal to it. With a larger tile each cell of total stride x total
            stride is predicted and normalised by itself (docs/decisions/0002).
        norm_target: Compare with the normalised pixels of each cell, as the official code does.
        decoder_dim: Channels of the decoder.
        decoder_depth: Blocks of the decoder.

    Raises:
        ConvNeXtV2Error: The tile is not a multiple of the total stride.
    """

    def __init__(
        self,
        encoder: ConvNeXtV2,
        *,
        tile: int | None = None,
        norm_target: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 1,
    ) -> None:
        super().__init__()
        assert encoder.norm is None, "FCMAE takes a bare encoder: build it with num_classes=None"
        self.cell = encoder.total_stride
        self.tile = tile or self.cell
        if self.tile % self.cell:
            raise ConvNeXtV2Error(
                f"tile = {tile}: expected a multiple of the total stride, {self.cell} px."
            )
        self.norm_target = norm_target
        self.arguments = {
            "tile": self.tile,
            "norm_target": norm_target,
            "decoder_dim": decoder_dim,
            "decoder_depth": decoder_depth,
        }

        self.encoder = encoder
        gelu, grn_scope = encoder.arguments["gelu"], encoder.arguments["grn_scope"]
        self.proj = PatchConv(encoder.dims[-1], decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim))
        self.decoder = nn.ModuleList(
            Block(decoder_dim, gelu=gelu, grn_scope=grn_scope) for _ in range(decoder_depth)
        )
        self.pred = PatchConv(decoder_dim, self.cell**2 * encoder.in_channels)
        for module in (self.proj, self.decoder, self.pred):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Divide an image into tiles.

        Args:
            height: Of the image, in px.
            width: Of the image, in px.

        Returns:
            Rows and columns of tiles.

        Raises:
            ConvNeXtV2Error: Tiles do not fill the image, or are fewer than two.
        """
        rows, columns = height // self.tile, width // self.tile
        if height % self.tile or width % self.tile or rows * columns < 2:
            raise ConvNeXtV2Error(
                f"image_size = {height} x {width}: expected two or more whole tiles of {self.tile} px, a multiple of "
                f"{self.tile} a side."
            )
        return rows, columns

    def forward(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Compute the loss, the mean squared error over the masked tiles.

        Args:
            images: (N, C, H, W), normalised.
            visible: int64 (N, V), the indices of the visible tiles; see `draw_masks`.
            masked: int64 (N, L - V), the indices of the others, at least one.

        Returns:
            A float32 scalar.

        Raises:
            ConvNeXtV2Error: Nothing is masked.
        """
        if masked.shape[1] == 0:
            raise ConvNeXtV2Error(
                "mask_ratio = 0: nothing is masked, so there is no loss. Use a ratio above 0."
            )
        grid = self.grid(*images.shape[-2:])
        predictions = self._predict(images, Tiles(visible, grid), Tiles(masked, grid))
        targets = fold(Tiles(masked, grid).cut(images), self.cell)
        with full_precision(images.device):
            targets = targets.to(torch.promote_types(targets.dtype, torch.float32))
            if self.norm_target:
                targets = normalise_tiles(targets)
            return F.mse_loss(predictions.to(targets.dtype), targets)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Replace masked tiles by what the model predicts from the visible ones.

        With `norm_target`, the mean and deviation of each cell are taken from the original image,
        because the model does not predict them.

        Args:
            images: (N, C, H, W), normalised.
            visible: int64 (N, V), the indices of the visible tiles.
            masked: int64 (N, L - V), the indices of the others.

        Returns:
            Images (N, C, H, W).
        """
        grid = self.grid(*images.shape[-2:])
        canvas = Tiles(masked, grid).canvas(self.tile)
        original = images.permute(0, 2, 3, 1)
        cells = self._predict(images, Tiles(visible, grid), Tiles(masked, grid)).to(images.dtype)
        if self.norm_target:
            pixels = fold(canvas.pick(original), self.cell)
            cells = cells * (pixels.var(-1, keepdim=True) + 1e-6).sqrt() + pixels.mean(
                -1, keepdim=True
            )
        return canvas.paint(unfold(cells, self.cell), onto=original).permute(0, 3, 1, 2)

    def _predict(self, images: Tensor, visible: Tiles, masked: Tiles) -> Tensor:
        """Predictions for the masked tiles, (N, L - V, k, k, cell * cell * C), each row ordered row, column, channel."""
        encoded = self.proj(self.encoder.encode(images, visible))
        cells_per_side = self.tile // self.cell
        x = visible.canvas(cells_per_side).paint(encoded, onto=self.mask_token)
        wanted = masked.canvas(cells_per_side)
        for i, block in enumerate(self.decoder, start=1):
            x = block(x, wanted=wanted if i == len(self.decoder) else None)
        return self.pred(x)
