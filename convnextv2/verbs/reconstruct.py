"""Show what a pre-trained model makes of images it sees in part."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from convnextv2.data.chance import stream
from convnextv2.data.folders import files
from convnextv2.data.left_out import BadImages, Quarantine
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.source import Source
from convnextv2.data.storage import Patience
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.distributed import choose_device
from convnextv2.errors import CheckpointError, DataError, RecipeError
from convnextv2.evaluation.gallery import hide, reconstruction_gallery, to_pixels
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.options import takes
from convnextv2.run import find_weights
from convnextv2.verbs.options import ReconstructOptions
from convnextv2.weights.load import load_model


@takes(ReconstructOptions)
def reconstruct(options: ReconstructOptions) -> Path:
    """Write a picture with reconstructions of images.

    For each image it shows the input, what the encoder saw, and the reconstruction with the
    visible tiles pasted back. The picture's ending says its format.

    Returns:
        The path of the picture.

    Raises:
        RecipeError: `out` cannot be used.
        DataError: None of the images can be read, or one and `bad_images` is "fail".
        CheckpointError: The weights are not of a pre-training run.
    """
    recipe, _ = options.recipe()
    path = _picture_file(Path(options.out))
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line)
    picture, skipped = reconstruct_source(
        find_weights(options.run),
        source,
        count=options.count,
        mask_ratio=recipe.mask_ratio,
        seed=recipe.seed,
        device=recipe.device,
        bad_images=recipe.bad_images,
    )
    for name in skipped:
        print(f"{name}: not readable, skipped.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except (OSError, ValueError) as error:  # ValueError: larger than the format permits
        why = getattr(error, "strerror", None) or error
        raise RecipeError(f"out = {path}: cannot be written ({why}).") from None
    print(f"Reconstructions: {path}")
    return path


def reconstruct_source(
    weights: Path,
    source: Source,
    *,
    count: int,
    mask_ratio: float,
    seed: int,
    device: str = "auto",
    bad_images: BadImages = "fail",
    quarantine: Quarantine | None = None,
    patience: Patience | None = None,
) -> tuple[Image.Image, list[str]]:
    """Make the gallery of at most `count` images of a source, evenly spread.

    Returns:
        The picture, and the names of images that could not be read.

    Raises:
        DataError: None of the images can be read, or one and `bad_images` is "fail".
        CheckpointError: The weights are not of a pre-training run.
    """
    model, description = load_model(weights)
    if not isinstance(model, FCMAE):
        raise CheckpointError(
            f"{weights}: a classifier, which cannot reconstruct. Give a run of: convnextv2 pretrain."
        )
    chosen_device = choose_device(device)
    model.to(chosen_device)
    transform = EvalTransform.from_description(description.preprocessing)
    spread = torch.linspace(0, len(source) - 1, min(count, len(source)))
    chosen = spread.round().int().tolist()
    loader = EvaluationLoader(
        source.subset(chosen),
        transform,
        batch_size=len(chosen),
        channels=transform.channels,
        bad_images=bad_images,
        quarantine=quarantine,
        patience=patience,
    )
    batch = next(iter(loader), None)
    if batch is None:
        raise DataError(f"none of {len(chosen)} images can be read, such as {min(loader.skipped)}.")
    normalisation = BatchTransform(transform.mean, transform.std)
    images = normalisation.normalise(batch.pixels.to(chosen_device))
    grid = model.grid(*transform.image_size)
    masks = draw_masks(len(images), grid, mask_ratio, stream(seed, "reconstruct"))
    visible, masked = (indices.to(chosen_device) for indices in masks)
    made = model.reconstruct(images, visible, masked)
    reconstructed = to_pixels(made, transform.mean, transform.std).cpu()
    seen = hide(batch.pixels, visible.cpu(), grid, model.tile)
    gallery = reconstruction_gallery(batch.pixels, seen, reconstructed)
    return gallery, sorted(loader.skipped)


def _picture_file(path: Path) -> Path:
    """The file to write, checked before any work is done."""
    if path.is_dir():
        raise RecipeError(f"out = {path}: is a folder. Give a file such as {path}/made.png.")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise RecipeError(f"out = {path}: expected a picture's ending, such as .png or .jpg.")
    return path
