"""Pictures of how a pre-trained model reconstructs images of which it sees only a part."""

from __future__ import annotations

from PIL import Image

from convnextv2.console import say
from convnextv2.data.left_out import BadImages, Quarantine
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.notices import say_left_out
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.data.storage import StorageWait
from convnextv2.data.transforms import EvalTransform
from convnextv2.device import choose_device
from convnextv2.errors import CheckpointError, DataError
from convnextv2.evaluation.gallery import reconstruction_gallery
from convnextv2.inference.reconstructor import reconstruct_pixels
from convnextv2.model.fcmae import FCMAE
from convnextv2.run import Run
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

_IMAGES = 8
"""Number of images in the gallery of a run."""


def run_gallery(
    run: Run, weights: Weights, quarantine: Quarantine | None = None
) -> Image.Image | None:
    """Make a picture of reconstructions of some images of a pre-training run.

    Args:
        run: The run, which may be an older one.
        weights: The weights of the run.
        quarantine: The run's list of bad images, if the run is the one that is reported.

    Returns:
        The picture. It is None if the images cannot be read. A line says so, and the report is
        written without it, since the run itself is finished and whole.
    """
    recipe = run.recipe
    try:
        source, validation = find_sources(recipe, labelled=False)
        picture, skipped = reconstruct_source(
            weights,
            validation or source,
            count=_IMAGES,
            mask_ratio=recipe.mask_ratio,
            seed=recipe.seed,
            device=recipe.device,
            bad_images=recipe.bad_images,
            quarantine=quarantine,
            storage_wait=StorageWait(recipe.data_wait_s),
        )
    except DataError as error:
        say(f"No reconstructions in the report: {error}")
        return None
    say_left_out(skipped, "gallery image")
    return picture


def reconstruct_source(
    weights: Weights,
    source: Source,
    *,
    count: int,
    mask_ratio: float,
    seed: int,
    device: str = "auto",
    bad_images: BadImages = "fail",
    quarantine: Quarantine | None = None,
    storage_wait: StorageWait | None = None,
) -> tuple[Image.Image, list[str]]:
    """Make the gallery of at most `count` images of a source, spread evenly.

    Args:
        weights: The weights of a pre-training run.
        source: The images.
        count: The largest number of images.
        mask_ratio: Share of the tiles that is hidden.
        seed: The seed of the masks.
        device: The device, as the knob names it.
        bad_images: What to do with an image that cannot be read.
        quarantine: The run's list of bad images; None without one.
        storage_wait: How long to wait for images that are unavailable; None for the default.

    Returns:
        The picture, and the names of images that could not be read.

    Raises:
        DataError: None of the images can be read, or one cannot and `bad_images` is "fail".
        CheckpointError: The weights are not those of a pre-training run.
    """
    model = restore(weights)
    if not isinstance(model, FCMAE):
        raise CheckpointError(
            f"{weights.path}: is {weights.description.noun}, which cannot reconstruct. Give a run "
            "of: convnextv2 pretrain."
        )
    model.to(choose_device(device))
    transform = EvalTransform(weights.preprocessing)
    source = source.spread(count)
    loader = EvaluationLoader(
        source,
        transform,
        batch_size=len(source),
        channels=transform.preprocessing.channels,
        bad_images=bad_images,
        quarantine=quarantine,
        storage_wait=storage_wait,
    )
    batch = next(iter(loader), None)
    if batch is None:
        raise DataError(f"none of {len(source)} images can be read, such as {min(loader.skipped)}.")
    seen, made = reconstruct_pixels(
        model, batch.pixels, transform.preprocessing, mask_ratio=mask_ratio, seed=seed
    )
    gallery = reconstruction_gallery(batch.pixels, seen, made)
    return gallery, sorted(loader.skipped)
