"""A model and labelled images, ready for an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.console import say
from convnextv2.data.build_transforms import build_batch_transform
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import EvaluationLoader, build_evaluation_loader
from convnextv2.data.source import Source
from convnextv2.data.storage import StorageWait
from convnextv2.data.transforms import EvalTransform
from convnextv2.data.workers import resolve_workers
from convnextv2.deploy.artifact import Artifact
from convnextv2.device import choose_precision
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError
from convnextv2.evaluation.evaluate import autocast_logits
from convnextv2.evaluation.prior import meaning, prior_shift, shifted
from convnextv2.find import run_of
from convnextv2.inference.scorer import check_own_prior, open_scorer
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.supervised.own_data import has_own_data
from convnextv2.tasks.supervised.rows import labelled_images
from convnextv2.weights.build import count_parameters
from convnextv2.weights.description import Description
from convnextv2.weights.names import library_of
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


@dataclass(frozen=True, eq=False)
class EvaluationSetup:
    """A model and labelled images, ready for an evaluation.

    Attributes:
        logits: Maps images to logits.
        loader: The batches of this rank.
        to_images: Maps pixels to the images that `logits` takes.
        source: The images.
        description: The description of the network, with a name for every row of its head.
        parameters: The number of parameters.
        value_range: The values that became black and white in files with more than 8 bits.
    """

    logits: Callable[[Tensor], Tensor]
    loader: EvaluationLoader
    to_images: Callable[[Tensor], Tensor]
    source: Source
    description: Description
    parameters: int
    value_range: tuple[float, float] | None

    def skipped(self, place: Place) -> tuple[str, ...]:
        """Return the names of the images that were left out on any rank."""
        return self.loader.skipped_anywhere(place)


def build_evaluation_setup(
    opened: Weights | Artifact, recipe: Recipe, place: Place, prior: Prior = "trained"
) -> EvaluationSetup:
    """Open a model, and find the recipe's validation images for it.

    Args:
        opened: The model. An artifact prepares its images in its own way.
        recipe: The recipe. It names the images, and says how they are prepared for weights that are
            not an artifact.
        place: This rank.
        prior: The frequencies of the classes for which probabilities hold; see `prior_shift`.

    Raises:
        CheckpointError: The weights have no classes, or contradict the recipe.
    """
    if isinstance(opened, Artifact):
        check_own_prior(opened, prior)
        return _setup_of_artifact(opened, recipe, place)
    if recipe.ema:
        opened = _averaged(opened)
    weights = opened.path
    for line in opened.lines():
        say(line)
    model, description = restore(opened), opened.description
    if not isinstance(model, ConvNeXtV2) or not model.num_classes:
        raise CheckpointError(
            f"{weights}: is a pre-trained encoder without a classifier, so there is no accuracy to "
            "measure. Train a classifier with --init."
        )
    _check_contradictions(recipe, model, description, weights)
    recipe = recipe.model_copy(update={"in_channels": model.in_channels})
    source, description = labelled_images(weights, description, recipe)
    to_images = build_batch_transform(recipe, model.num_classes)
    model.to(place.device)
    logits = autocast_logits(
        model, place, choose_precision(recipe.evaluation_precision, place.device)
    )
    if prior != "trained":
        logits = _shifted(logits, prior_shift(description.balance, prior, str(weights)))
        description = replace(description, balance=shifted(description.balance, prior))
        say(meaning(description.balance))
    return EvaluationSetup(
        logits,
        build_evaluation_loader(recipe, source, place, own_quarantine(weights, recipe)),
        lambda pixels: to_images.normalise(pixels.to(place.device)),
        source,
        description,
        count_parameters(description),
        recipe.value_range,
    )


def _averaged(opened: Weights) -> Weights:
    """Return the averaged weights beside plain ones; other weights stay as they are.

    Raises:
        CheckpointError: The file is from MindCV and has no averaged weights.
    """
    path, owner = opened.path, run_of(opened.path)
    if opened.has_average:
        say(f"{path}: its averaged weights are measured.")
        return opened.average()
    if library_of(opened.origin.format) != "mindcv":
        return opened
    if owner is None or path.name != f"{owner.recipe.model}_best.ckpt" or not owner.recipe.ema:
        raise CheckpointError(
            f"ema = True: {path} has no averaged weights. Use --ema False to measure its plain "
            "ones."
        )
    say(f"{path}: averaged weights are measured, because the run saves these as its best.")
    return opened


def _setup_of_artifact(artifact: Artifact, recipe: Recipe, place: Place) -> EvaluationSetup:
    scorer = open_scorer(artifact, device=recipe.device, precision=recipe.precision)
    for line in scorer.notes:
        say(line)
    source, description = labelled_images(artifact.path, artifact.description, recipe)
    return EvaluationSetup(
        scorer.logits,
        build_own_loader(scorer.transform, source, artifact.path, recipe, place),
        lambda pixels: pixels,
        source,
        description,
        count_parameters(artifact.description),
        scorer.transform.preprocessing.value_range,
    )


def build_own_loader(
    transform: EvalTransform, source: Source, weights: Path, recipe: Recipe, place: Place
) -> EvaluationLoader:
    """Build the batches of this rank for a model that prepares images in its own way.

    Args:
        transform: Prepares the images.
        source: The images.
        weights: The path of the model, whose run may have a list of bad images.
        recipe: Says how many images are in a batch, and whether bad ones are skipped.
        place: This rank.
    """
    return EvaluationLoader(
        source,
        transform,
        batch_size=recipe.images_per_batch(),
        channels=transform.preprocessing.channels,
        workers=resolve_workers(recipe.workers, place.local_world_size)[0],
        rank=place.rank,
        world_size=place.world_size,
        bad_images=recipe.bad_images,
        quarantine=own_quarantine(weights, recipe),
        storage_wait=StorageWait(recipe.data_wait_s),
    )


def _shifted(
    logits_fn: Callable[[Tensor], Tensor], shift: NDArray[np.float64]
) -> Callable[[Tensor], Tensor]:
    """Add a number for each class to logits. In the head's bias, half precision would round it."""

    def logits(images: Tensor) -> Tensor:
        found = logits_fn(images)
        return found + torch.from_numpy(shift).to(found)

    return logits


def own_quarantine(weights: Path, recipe: Recipe) -> Quarantine | None:
    """Return the quarantine of the run that the weights belong to, if its own images are used."""
    owner = run_of(weights)
    if recipe.bad_images != "quarantine" or owner is None or not has_own_data(weights, recipe):
        return None
    return Quarantine(owner.path)


def _check_contradictions(
    recipe: Recipe, model: ConvNeXtV2, description: Description, weights: Path
) -> None:
    """Check that the recipe describes the same network as the weights do.

    Raises:
        CheckpointError: The recipe describes another network, so it was meant for other weights.
    """
    held = {
        "model": description.model,
        "depths": model.depths,
        "dims": model.dims,
        "num_classes": model.num_classes,
    }
    asked = {name: getattr(recipe, name) for name in held if name in recipe.model_fields_set}
    wrong = {name: held[name] for name, value in asked.items() if value not in (None, held[name])}
    if recipe.in_channels not in (3, model.in_channels):  # MindCV's recipes leave 3 out
        wrong["in_channels"] = model.in_channels
    for name, value in wrong.items():
        raise CheckpointError(
            f"{name} = {getattr(recipe, name)}: {weights} has {value}. Leave {name} out, or give "
            "the weights that belong to it."
        )
    if recipe.in_channels != model.in_channels:
        say(f"in_channels {model.in_channels}, taken from the weights.")
