"""Show what a pre-trained model makes of images it sees in part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from convnextv2.data.chance import stream
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.sources import Source, files
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.distributed import choose_device
from convnextv2.errors import CheckpointError
from convnextv2.evaluation.gallery import hide, reconstruction_gallery, to_pixels
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.read import read_recipe
from convnextv2.run import find_weights
from convnextv2.weights.load import load_model


def reconstruct(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "reconstructions.png",
    count: int = 16,
    **knobs: Any,
) -> Path:
    """Write a PNG with, for each image, the input, what the encoder saw, and the reconstruction with the visible tiles pasted
    back.

    run: a pre-training run. images: files, or folders of them. count: at most so many, evenly spread. knobs: seed, mask_ratio,
    device, bad_images, max_image_pixels. Returns the path."""
    recipe, _ = read_recipe(knobs)
    source = files([images] if isinstance(images, str | Path) else images, max_pixels=recipe.max_image_pixels)
    picture = reconstruct_source(
        find_weights(run), source, count=count, mask_ratio=recipe.mask_ratio, seed=recipe.seed, device=recipe.device
    )
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    print(f"Reconstructions: {path}")
    return path


def reconstruct_source(
    weights: Path, source: Source, *, count: int, mask_ratio: float, seed: int, device: str = "auto"
) -> Image.Image:
    """The gallery of at most `count` images of a source, evenly spread."""
    model, description = load_model(weights)
    if not isinstance(model, FCMAE):
        raise CheckpointError(f"{weights}: a classifier, which cannot reconstruct. Give a run of: convnextv2 pretrain.")
    chosen_device = choose_device(device)
    model.to(chosen_device)
    transform = EvalTransform.from_description(description.preprocessing)
    chosen = torch.linspace(0, len(source) - 1, min(count, len(source))).round().int().tolist()
    loader = EvaluationLoader(source.subset(chosen), transform, batch_size=len(chosen), channels=transform.channels)
    batch = next(iter(loader))
    normalisation = BatchTransform(transform.mean, transform.std)
    images = normalisation.normalise(batch.pixels.to(chosen_device))
    grid = model.grid(*transform.image_size)
    visible, masked = (
        indices.to(chosen_device) for indices in draw_masks(len(images), grid, mask_ratio, stream(seed, "reconstruct"))
    )
    reconstructed = to_pixels(model.reconstruct(images, visible, masked), transform.mean, transform.std)
    return reconstruction_gallery(batch.pixels, hide(batch.pixels, visible.cpu(), grid, model.tile), reconstructed.cpu())
