"""The reconstructor, which shows how a pre-trained model fills in masked images."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor

from convnextv2.data.randomness import generator_for
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.evaluation.gallery import grey_out, to_picture, to_pixels
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


class Reconstructor:
    """A pre-trained model that shows how it fills in masked images.

    Args:
        weights: Its weights.

    Attributes:
        transform: How its images are prepared.
        sha256: The SHA-256 of its weights.
        notes: Messages about the model, above all its licence.
    """

    def __init__(self, weights: Weights) -> None:
        model = restore(weights)
        assert isinstance(model, FCMAE)
        self.model = model.eval()
        self.transform = EvalTransform(weights.preprocessing)
        self.sha256, self.notes = weights.origin.sha256, weights.lines()

    def __call__(self, pixels: Tensor, mask_ratio: float, seed: int) -> tuple[str, str]:
        """Reconstruct one image.

        Args:
            pixels: uint8 (C, H, W), as `transform` makes them.
            mask_ratio: The share of the tiles that is hidden.
            seed: Decides which tiles are hidden.

        Returns:
            Two PNGs in base64: what the encoder sees, and the reconstruction with the visible tiles
            put back.
        """
        how = self.transform.preprocessing
        seen, made = reconstruct_pixels(
            self.model, pixels[None], how, mask_ratio=mask_ratio, seed=seed
        )
        return _png(seen[0]), _png(made[0])


@torch.inference_mode()
def reconstruct_pixels(
    model: FCMAE, pixels: Tensor, how: Preprocessing, *, mask_ratio: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Hide tiles of images, and let a model fill them in.

    Args:
        model: The pre-trained model, on its device.
        pixels: uint8 (N, C, H, W), on the CPU.
        how: How the images were prepared.
        mask_ratio: The share of the tiles that is hidden.
        seed: Decides which tiles are hidden.

    Returns:
        What the encoder sees, and the reconstruction with the visible tiles put back. Both are
        uint8 (N, C, H, W), on the CPU.
    """
    device = model.mask_token.device
    grid = model.grid(*how.image_size)
    visible, masked = draw_masks(len(pixels), grid, mask_ratio, generator_for(seed, "reconstruct"))
    images = normaliser(how)(pixels.to(device))
    made = model.reconstruct(images, visible.to(device), masked.to(device))
    return grey_out(pixels, visible, grid, model.tile), to_pixels(made, how.mean, how.std).cpu()


def _png(pixels: Tensor) -> str:
    """Encode pixels, uint8 (C, H, W), as PNG in base64."""
    file = io.BytesIO()
    to_picture(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
