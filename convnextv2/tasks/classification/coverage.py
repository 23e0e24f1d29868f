"""Fit the "unknown" answer of a classifier on half of the images, and test it on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.source import Source
from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place
from convnextv2.errors import ArtifactError, DataError, RecipeError, RunError
from convnextv2.evaluation.foreign import enlarged_parts
from convnextv2.evaluation.unknown import (
    Coverage,
    Unknown,
    check_enough,
    features_of,
    fingerprints,
    fit_unknown,
    path_beside,
    save_unknown,
)
from convnextv2.inference.scorer import Scorer, open_scorer
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.supervised.evaluation_setup import build_own_loader
from convnextv2.weights.hub import repository_of
from convnextv2.weights.opened import Weights


@dataclass(frozen=True, eq=False)
class _Scored:
    """The images of this rank.

    Attributes:
        indices: int64 (N,), their indices in the source.
        targets: int64 (N,).
        probs: float32 (N, classes).
        features: float32 (N, D), see `unknown.features_of`.
        parts: float32 (N, D), those of a part of each image; no rows if nothing is to be fitted.
        hashes: int64 (N,), see `unknown.fingerprints`.
    """

    indices: NDArray[np.int64]
    targets: NDArray[np.int64]
    probs: NDArray[np.float32]
    features: NDArray[np.float32]
    parts: NDArray[np.float32]
    hashes: NDArray[np.int64]

    @property
    def for_fit(self) -> tuple[NDArray[Any], ...]:
        """Return what `fit_unknown` takes."""
        return self.right, self.features, self.parts, self.targets, self.hashes

    @property
    def right(self) -> NDArray[np.float32]:
        """The probability of the right class, float32 (N,)."""
        return self.probs[np.arange(len(self.targets)), self.targets]


def check_coverage(
    opened: Weights | Artifact, recipe: Recipe, coverage: float, prior: Prior
) -> None:
    """Check before any work is done that a coverage can be fitted or tested for a model.

    Args:
        opened: The model.
        recipe: The recipe, which says how images are prepared for weights.
        coverage: The coverage that is asked for.
        prior: The frequencies of the classes for which the probabilities are to hold.

    Raises:
        ArtifactError: The artifact was exported without a coverage, or with another one.
        RecipeError: The model is not a classifier, or its images would be prepared in another way
            than by `predict`.
        RunError: Nothing can be written beside the weights.
    """
    asked = f"coverage = {coverage:g}"
    kind = opened.description.kind
    if kind != "classifier":
        raise RecipeError(
            f"{asked}: is for models that give an image one class, but {opened.path} is of kind "
            f"{kind}. Leave coverage out."
        )
    if prior != "trained":
        raise RecipeError(
            f"{asked}: is fitted for the frequencies of classes in training. Leave prior out, or "
            "export with both."
        )
    if isinstance(opened, Artifact):
        unknown = opened.unknown()
        if unknown is None:
            raise ArtifactError(
                f"{asked}: {opened.path} was exported without a coverage. Export the run again "
                f"with --coverage {coverage:g}."
            )
        if unknown.about.coverage != coverage:
            raise ArtifactError(
                f"{asked}: {opened.path} was exported with a coverage of "
                f"{unknown.about.coverage:g}. Ask for that, or export the run again."
            )
        return
    if recipe.ema and opened.has_average:
        raise RecipeError(
            f"{asked}: is fitted for the weights that predict uses, not for averaged ones in a "
            "checkpoint. Leave ema out."
        )
    own = opened.description.preprocessing
    if own and Preprocessing.read(own) != build_preprocessing(recipe):
        raise RecipeError(
            f"{asked}: is fitted for images as predict prepares them. Leave out the knobs that "
            "prepare them in another way."
        )
    if repository_of(opened.path) or repository_of(opened.path.parent):
        raise RunError(
            f"{asked}: {opened.path} lies in the cache of the Hub, which is not written to. "
            "Use export --coverage, or copy the weights."
        )


def measure_coverage(
    opened: Weights | Artifact, source: Source, recipe: Recipe, place: Place, coverage: float
) -> Coverage:
    """Test the coverage of a classifier, on images that it was not fitted on.

    If nothing has been fitted for these weights and this coverage yet, half of the images serve to
    fit it and the other half to test it. The fit is stored beside the weights. All ranks call this
    function.

    Args:
        opened: The model, for which `check_coverage` has found nothing wrong.
        source: The labelled images, whose targets are rows of the model.
        recipe: The recipe, with knobs for inference.
        place: This rank.
        coverage: The coverage that is asked for.

    Raises:
        DataError: There are too few images.
    """
    device = recipe.device if isinstance(opened, Artifact) else str(place.device)
    scorer = open_scorer(opened, device=device, precision=recipe.precision)
    unknown = scorer.unknown
    images_from = f"labelled validation images of {recipe.data_dir or recipe.dataset}"
    is_fitted = unknown is not None and unknown.about.coverage == coverage
    if not is_fitted:
        check_enough(len(source), coverage, images_from, factor=2)
    scored = _score(scorer, source, opened, recipe, place, with_parts=not is_fitted)
    if unknown is None or not is_fitted:
        unknown = _fit(scored, len(source), scorer.sha256, place, coverage, images_from)
        if place.is_main:
            save_unknown(path_beside(opened.path), unknown)
    return _test(unknown, scored, place, images_from)


def _score(
    scorer: Scorer,
    source: Source,
    opened: Weights | Artifact,
    recipe: Recipe,
    place: Place,
    *,
    with_parts: bool,
) -> _Scored:
    """Score the images of this rank as `predict` does, without those that have no class."""
    loader = build_own_loader(scorer.transform, source, opened.path, recipe, place)
    columns: list[tuple[NDArray[np.int64], ...]] = []
    probs = [np.empty((0, len(scorer.class_names)), np.float32)]
    features: list[NDArray[np.float32]] = []
    parts: list[NDArray[np.float32]] = []
    for batch in loader:
        scores, known = scorer(batch.pixels), (batch.targets >= 0).numpy()
        hashes = fingerprints(batch.pixels)
        columns.append(
            tuple(each[known] for each in (batch.indices.numpy(), batch.targets.numpy(), hashes))
        )
        probs.append(scores.probs[known])
        features.append(features_of(scores.embedding, batch.pixels)[known])
        if with_parts:
            cut = enlarged_parts(batch.pixels, hashes)
            parts.append(features_of(scorer(cut).embedding, cut)[known])
    indices, targets, hashes = (
        np.concatenate([np.empty(0, np.int64), *(each[i] for each in columns)]) for i in range(3)
    )
    nothing = np.empty((0, 0), np.float32)  # a rank without images does not know the width
    return _Scored(
        indices,
        targets,
        np.concatenate(probs),
        np.concatenate(features) if features else nothing,
        np.concatenate(parts) if parts else nothing,
        hashes,
    )


def _fit(
    scored: _Scored, images: int, sha256: str, place: Place, coverage: float, images_from: str
) -> Unknown:
    """Fit on a random half of the images of all ranks. Every rank gets the result."""
    chosen = np.zeros(images, bool)
    chosen[np.random.default_rng(0).permutation(images)[: (images + 1) // 2]] = True
    here = chosen[scored.indices]
    gathered = place.gather(tuple(each[here] for each in scored.for_fit) if here.any() else None)
    found = [each for each in gathered if each is not None]
    if not found:
        check_enough(0, coverage, images_from)
    columns = (np.concatenate([each[i] for each in found]) for i in range(5))
    return fit_unknown(*columns, coverage=coverage, sha256=sha256, images_from=images_from)


def _test(unknown: Unknown, scored: _Scored, place: Place, images_from: str) -> Coverage:
    """Test on the images of all ranks that were not fitted on."""
    new = ~unknown.seen(scored.hashes)
    possible, foreign = unknown.possible(scored.probs[new]), 0
    if new.any():
        foreign = int((unknown.foreignness(scored.features[new]) > 1).sum())
    sizes = possible.sum(1)
    covered = possible[np.arange(len(possible)), scored.targets[new]].sum()
    images, *counts = place.sum_numbers(
        len(possible), float(covered), float(sizes.sum()), float((sizes == 0).sum()), foreign
    )
    if not images:
        raise DataError(
            f"coverage = {unknown.about.coverage:g}: was fitted on all of these images "
            f"({images_from}), so they cannot test it. Give others with data_dir."
        )
    covered_share, mean, none, foreign_share = (count / images for count in counts)
    return Coverage(
        unknown.about.coverage,
        covered_share,
        int(images),
        unknown.about.images,
        mean,
        none,
        foreign_share,
    )
