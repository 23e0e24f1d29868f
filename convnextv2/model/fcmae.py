"""FCMAE, the fully convolutional masked autoencoder: masks, target, decoder and loss.

It is described in section 3 of arXiv 2301.00808. It deliberately differs from the official PyTorch
code: GRN runs over the visible positions of each image (there: of the whole batch), every initial
weight has a standard deviation of 0.02 (there: 1.0 for most), and images may have any size and
number of channels (docs/decisions/0001). Tensors are named as in the official pre-training
checkpoints.
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
    """Count the tiles that stay visible.

    As in the official code, the number is int(tiles * (1 - mask_ratio)). However, at least one tile
    is visible, and at least one is masked unless the ratio is 0.

    Args:
        tiles: The number of tiles in an image.
        mask_ratio: The share of the tiles to mask, from 0 to 1.

    Returns:
        The number of visible tiles.
    """
    if mask_ratio == 0:
        return tiles
    return max(1, min(int(tiles * (1 - mask_ratio)), tiles - 1))


def draw_masks(
    n: int, grid: tuple[int, int], mask_ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose visible tiles at random for each image.

    Args:
        n: The number of images.
        grid: Rows and columns of tiles in an image.
        mask_ratio: Share of the tiles to mask, from 0 to 1.
        generator: A generator on the CPU, so that one seed gives one mask on every device.

    Returns:
        The visible tiles, int64 (n, V), and the masked ones, int64 (n, L - V). Both are sorted
        indices on the CPU.
    """
    tiles = grid[0] * grid[1]
    order = torch.rand(n, tiles, generator=generator).argsort(dim=1)
    visible = visible_count(tiles, mask_ratio)
    return order[:, :visible].sort(dim=1).values, order[:, visible:].sort(dim=1).values


def normalise_tiles(pixels: Tensor, eps: float = 1e-6) -> Tensor:
    """Subtract the mean of each row and divide by sqrt(unbiased variance + eps).

    Args:
        pixels: (..., D), one row for each tile.
        eps: Added to the variance.

    Returns:
        (..., D), in the same dtype.
    """
    # Layer norm does this in one pass, but divides by the biased deviation, which is the unbiased
    # one times sqrt(1 - 1 / D).
    share = 1 - 1 / pixels.shape[-1]
    return F.layer_norm(pixels, pixels.shape[-1:], eps=eps * share) * share**0.5


class FCMAE(nn.Module):
    """Masked autoencoder around a bare encoder.

    Args:
        encoder: A network that was built with `num_classes=None`. The blocks of the decoder have
            its form.
        tile: Side in px of the square that is seen or hidden as a whole, a multiple of the
            encoder's total stride; None for that stride. In a larger tile, each cell of total
            stride x total stride is predicted and normalised by itself (docs/decisions/0002).
        norm_target: Whether the pixels of each cell are normalised before they are compared, as is
            the official default.
        decoder_dim: Channels of the decoder.
        decoder_depth: Blocks of the decoder.

    Raises:
        ConvNeXtV2Error: The encoder has a final norm, `tile` is not a multiple of the total stride,
            or `decoder_dim` or `decoder_depth` is below 1.
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
        if encoder.norm is not None:
            raise ConvNeXtV2Error(
                f"num_classes = {encoder.num_classes}: FCMAE takes a bare encoder. Build it with "
                "num_classes=None."
            )
        self.cell = encoder.total_stride
        self.tile = self.cell if tile is None else tile
        if self.tile < 1 or self.tile % self.cell:
            raise ConvNeXtV2Error(
                f"tile = {tile}: expected a multiple of the total stride, {self.cell} px."
            )
        for name, value in (("decoder_dim", decoder_dim), ("decoder_depth", decoder_depth)):
            if value < 1:
                raise ConvNeXtV2Error(f"{name} = {value}: expected a whole number >= 1.")
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
            Block(decoder_dim, block=encoder.block, gelu=gelu, grn_scope=grn_scope)
            for _ in range(decoder_depth)
        )
        self.pred = PatchConv(decoder_dim, self.cell**2 * encoder.in_channels)
        for module in (self.proj, self.decoder, self.pred):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)
        # Distillation puts two layers here that predict a teacher's features: "visible" from the
        # output of the encoder, and "masked" from that of the decoder.
        self.projection: nn.ModuleDict | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tiles in an image.

        Args:
            height: Height of the image in px.
            width: Width of the image in px.

        Raises:
            ConvNeXtV2Error: The image does not consist of two or more whole tiles.
        """
        rows, columns = height // self.tile, width // self.tile
        if height % self.tile or width % self.tile or rows * columns < 2:
            raise ConvNeXtV2Error(
                f"image_size = {height} x {width}: expected two or more whole tiles of {self.tile} "
                f"px, a multiple of {self.tile} a side."
            )
        return rows, columns

    def forward(
        self, images: Tensor, visible: Tensor, masked: Tensor, *, projected: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the loss, the mean squared error over the masked tiles.

        Args:
            images: (N, C, H, W), normalised.
            visible: int64 (N, V), the tiles that the encoder sees, from `draw_masks`.
            masked: int64 (N, L - V), the tiles that are predicted.
            projected: Whether to return the prediction of a teacher's features too.

        Returns:
            A float32 scalar. With `projected`, also the predicted features, (N, L, k, k, width), of
            the visible tiles and then of the masked ones.

        Raises:
            ConvNeXtV2Error: Nothing is masked, or the images do not consist of two or more whole
                tiles.
        """
        if masked.shape[1] == 0:
            raise ConvNeXtV2Error(
                "mask_ratio = 0: nothing is masked, so there is no loss. Use a ratio above 0."
            )
        grid = self.grid(*images.shape[-2:])
        encoded, decoded = self._decode(images, Tiles(visible, grid), Tiles(masked, grid))
        predictions = self.pred(decoded)
        targets = fold(Tiles(masked, grid).cut(images), self.cell)
        with full_precision(images.device):
            targets = targets.to(torch.promote_types(targets.dtype, torch.float32))
            if self.norm_target:
                targets = normalise_tiles(targets)
            loss = F.mse_loss(predictions.to(targets.dtype), targets)
        if not projected:
            return loss
        assert self.projection is not None
        visible_part = self.projection["visible"](encoded)
        return loss, torch.cat([visible_part, self.projection["masked"](decoded)], dim=1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Replace the masked tiles of images by the model's predictions from the visible ones.

        With `norm_target`, the mean and deviation of each cell are taken from the original image,
        because the model does not predict them.

        Args:
            images: (N, C, H, W), normalised.
            visible: int64 (N, V), the tiles that the encoder sees, from `draw_masks`.
            masked: int64 (N, L - V), the tiles that are predicted.

        Returns:
            (N, C, H, W), normalised.
        """
        grid = self.grid(*images.shape[-2:])
        canvas = Tiles(masked, grid).canvas(self.tile)
        original = images.permute(0, 2, 3, 1)
        _, decoded = self._decode(images, Tiles(visible, grid), Tiles(masked, grid))
        cells = self.pred(decoded).to(images.dtype)
        if self.norm_target:
            pixels = fold(canvas.pick(original), self.cell)
            cells = cells * (pixels.var(-1, keepdim=True) + 1e-6).sqrt() + pixels.mean(
                -1, keepdim=True
            )
        return canvas.paint(unfold(cells, self.cell), onto=original).permute(0, 3, 1, 2)

    def _decode(self, images: Tensor, visible: Tiles, masked: Tiles) -> tuple[Tensor, Tensor]:
        """Encode the visible tiles, and decode the masked ones.

        `pred` maps a decoded tile to its cells, each (cell * cell * C) ordered by row, column and
        channel.

        Returns:
            The visible tiles, (N, V, k, k, dims[3]), and the masked ones,
            (N, L - V, k, k, decoder_dim).
        """
        encoded = self.encoder.encode(images, visible)
        cells_per_side = self.tile // self.cell
        x = visible.canvas(cells_per_side).paint(self.proj(encoded), onto=self.mask_token)
        wanted = masked.canvas(cells_per_side)
        for i, block in enumerate(self.decoder, start=1):
            x = block(x, wanted=wanted if i == len(self.decoder) else None)
        return encoded, x
