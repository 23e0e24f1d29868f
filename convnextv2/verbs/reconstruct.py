"""Show how a pre-trained model reconstructs partly masked images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from convnextv2.data.folders import files
from convnextv2.data.output_path import check_outside_data
from convnextv2.errors import RecipeError
from convnextv2.files import replacing
from convnextv2.find import find_weights, recipe_of
from convnextv2.places import check_place, check_unread
from convnextv2.recipe.options import takes
from convnextv2.tasks.masked.gallery import reconstruct_source
from convnextv2.text import plain
from convnextv2.verbs.options.predicting import ReconstructOptions
from convnextv2.weights.opened import open_weights


@takes(ReconstructOptions)
def reconstruct(options: ReconstructOptions) -> Path:
    """Write a picture with reconstructions of images.

    For each image, it shows the input, what the encoder saw, and the reconstruction with the
    visible tiles pasted back. The extension of the picture's file name decides its format.

    Returns:
        The path of the picture.

    Raises:
        RecipeError: `out` cannot be used.
        DataError: None of the images can be read, or one cannot and `bad_images` is "fail".
        CheckpointError: The weights are not those of a pre-training run.
    """
    recipe, _ = options.recipe()
    path = _picture_file(Path(options.out))
    check_unread(path, options.images)
    weights = find_weights(options.run)
    check_outside_data(path, recipe_of(weights))
    check_place(path)
    source = files(options.images, max_pixels=recipe.max_image_pixels)
    for line in source.notes:
        print(line)
    picture, skipped = reconstruct_source(
        open_weights(weights),
        source,
        count=options.count,
        mask_ratio=recipe.mask_ratio,
        seed=recipe.seed,
        device=recipe.device,
        bad_images=recipe.bad_images,
    )
    for name in skipped:
        print(f"{plain(name)}: not readable, skipped.")
    try:
        with replacing(path, makes_folder=True) as temporary:
            picture.save(temporary, Image.registered_extensions()[path.suffix.lower()])
    except (OSError, ValueError) as error:  # ValueError: larger than the format allows
        why = getattr(error, "strerror", None) or error
        raise RecipeError(f"out = {path}: cannot be written ({why}).") from None
    print(f"Reconstructions: {path}")
    return path


def _picture_file(path: Path) -> Path:
    """Check the path of the picture before any work is done."""
    if path.is_dir():
        raise RecipeError(f"out = {path}: is a folder. Give a file such as {path}/made.png.")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise RecipeError(
            f"out = {path}: expected the extension of an image format, such as .png or .jpg."
        )
    return path
