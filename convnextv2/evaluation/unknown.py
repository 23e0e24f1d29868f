"""The "unknown" answer of a classifier: classes that cannot be excluded, and foreign images.

It is fitted on labelled images that the model was not trained on, and saved in a file beside the
weights or in an artifact. It is valid for one model, whose SHA-256 is in the file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import Tensor

from convnextv2.errors import CheckpointError, DataError
from convnextv2.evaluation.conformal import least_probability, needed_images, rank_of
from convnextv2.evaluation.foreign import Foreign, appearance, fit_foreign
from convnextv2.weights.safetensors import read_tensors, write_tensors

UNKNOWN = "unknown.safetensors"
KNOWN_SHARE = 0.95
"""The share of known images that count as known. The others are false alarms.

With fewer than 19 images, none of the images of the fit counts as foreign."""

_KEY = "unknown"
_TENSORS = tuple(each.name for each in fields(Foreign))


class UnknownFacts(BaseModel):
    """The model and the images of an "unknown" answer, and its limits.

    Attributes:
        unknown: The version of this format.
        sha256: The SHA-256 of the weights, or of the artifact's model.
        coverage: The share of images for which the possible classes must include the right one.
        least_probability: The lowest probability at which a class is possible.
        farthest: The score above which an image is foreign; see `Foreign`.
        images: The number of images that it was fitted on.
        images_from: The origin of these images, as text.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    unknown: Literal[1] = 1
    sha256: str
    coverage: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    least_probability: Annotated[FiniteFloat, Field(ge=0, le=1)]
    farthest: Annotated[FiniteFloat, Field(gt=0)]
    images: Annotated[int, Field(ge=1)]
    images_from: str


@dataclass(frozen=True, eq=False)
class Unknown:
    """The fitted rules for which classes are possible and which images are foreign.

    Attributes:
        about: The model and the images that it was fitted for, and its limits.
        foreign: The score of how foreign an image is.
        fitted: int64 (images,), ascending: the fingerprints of the images that it was fitted on.
    """

    about: UnknownFacts
    foreign: Foreign
    fitted: NDArray[np.int64]

    def possible(self, probs: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which classes cannot be excluded, bool (N, classes).

        If all are excluded, no class is as probable as the right class of a known image usually is.

        Args:
            probs: The probabilities, float32 (N, classes).
        """
        return probs >= self.about.least_probability

    def foreignness(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how foreign images are, float32 (N,). Above 1, an image counts as foreign.

        Args:
            features: float32 (N, D), see `features_of`.
        """
        return self.foreign(features) / np.float32(self.about.farthest)

    def seen(self, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images it was fitted on, bool (N,), by their fingerprints."""
        return np.isin(hashes, self.fitted)

    def for_model(self, sha256: str) -> Unknown:
        """Return a copy for a model with another hash, such as a new artifact."""
        return replace(self, about=self.about.model_copy(update={"sha256": sha256}))


@dataclass(frozen=True)
class Coverage:
    """The figures of an "unknown" answer on labelled images that it was not fitted on.

    Attributes:
        asked: The requested coverage.
        covered: The share of images whose right class is among the possible ones.
        images: The number of these images.
        fitted_images: The number of images that it was fitted on.
        mean_possible: The mean number of possible classes.
        none_possible: The share of images for which no class is possible.
        foreign: The share of images that count as foreign.
    """

    asked: float
    covered: float
    images: int
    fitted_images: int
    mean_possible: float
    none_possible: float
    foreign: float

    def line(self) -> str:
        """Return the figures as a line for the user."""
        return (
            f"Coverage: in {self.covered:.2%} of {self.images:,} images, the right class is among "
            f"the possible ones (asked: {self.asked:.2%}, fitted on {self.fitted_images:,} other "
            f"images). {self.mean_possible:.2f} classes are possible on average, none for "
            f"{self.none_possible:.2%}; {self.foreign:.2%} of the images count as foreign."
        )


def fit_unknown(
    probs: NDArray[np.float32],
    features: NDArray[np.float32],
    parts: NDArray[np.float32],
    targets: NDArray[np.int64],
    hashes: NDArray[np.int64],
    *,
    coverage: float,
    sha256: str,
    images_from: str,
) -> Unknown:
    """Fit an "unknown" answer to labelled images that the model was not trained on.

    Args:
        probs: The probability of the right class of each image, float32 (N,).
        features: float32 (N, D), see `features_of`.
        parts: float32 (N, D), the features of a part of each image, see `enlarged_parts`.
        targets: int64 (N,), the classes.
        hashes: int64 (N,), see `fingerprints`.
        coverage: The share of images for which the possible classes must include the right one.
        sha256: The SHA-256 of the model.
        images_from: The origin of the images, as text.

    Raises:
        DataError: There are too few images for the coverage, or the model returned NaN.
    """
    check_enough(len(targets), coverage, images_from)
    if not all(np.isfinite(each).all() for each in (probs, features, parts)):
        raise DataError(f"{images_from}: the model returns NaN or infinity for some of them.")
    # Sorted, so that the fit does not depend on the order, and each fold has images of all classes.
    order = np.lexsort((hashes, targets))
    foreign, distances = fit_foreign(features[order], parts[order])
    farthest = np.sort(distances)[min(rank_of(KNOWN_SHARE, len(distances)), len(distances)) - 1]
    about = UnknownFacts(
        sha256=sha256,
        coverage=coverage,
        least_probability=least_probability(probs, coverage),
        farthest=max(float(farthest), 1e-6),
        images=len(targets),
        images_from=images_from,
    )
    return Unknown(about, foreign, np.sort(hashes))


def features_of(embedding: NDArray[np.float32], pixels: Tensor) -> NDArray[np.float32]:
    """Return the features of images from the network and from the pixels, float32 (N, D).

    Args:
        embedding: The pooled and normalised features, float32 (N, E).
        pixels: The images at the model's size, uint8 (N, C, H, W).
    """
    return np.concatenate([embedding, appearance(pixels)], 1)


def check_enough(images: int, coverage: float, images_from: str, *, factor: int = 1) -> None:
    """Raise DataError if there are too few labelled images to fit a coverage.

    Args:
        images: The number of images.
        coverage: The coverage.
        images_from: The origin of the images, as text.
        factor: The factor on the minimum number, since some images are kept for the test.
    """
    needed = max(2, needed_images(coverage)) * factor
    if images < needed:
        raise DataError(
            f"coverage = {coverage:g}: needs at least {needed} labelled images, and there are "
            f"{images} ({images_from}). Give more images, or a lower coverage."
        )


def fingerprints(pixels: Tensor) -> NDArray[np.int64]:
    """Return a hash of the content of each image, int64 (N,).

    Args:
        pixels: Images at the model's size, uint8 (N, C, H, W).
    """
    rows = pixels.contiguous().numpy().reshape(len(pixels), -1)
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def path_beside(weights: Path) -> Path:
    """Return the path of the "unknown" answer for weights.

    Args:
        weights: A weights file, or a folder of the Hub.
    """
    if weights.is_dir():
        return weights / UNKNOWN
    if weights.name == "model.safetensors":
        return weights.with_name(UNKNOWN)
    return weights.with_name(f"{weights.stem}.{UNKNOWN}")


def save_unknown(path: Path, unknown: Unknown) -> None:
    """Write an "unknown" answer in one atomic step."""
    tensors = {
        **{name: torch.from_numpy(getattr(unknown.foreign, name)) for name in _TENSORS},
        "fitted": torch.from_numpy(unknown.fitted),
    }
    write_tensors(path, tensors, {_KEY: json.dumps(unknown.about.model_dump())})


def load_unknown(path: Path) -> Unknown:
    """Read an "unknown" answer.

    Raises:
        CheckpointError: The file is damaged, or does not hold one.
    """
    try:
        tensors, metadata = read_tensors(path)
        about = UnknownFacts.model_validate_json(metadata.get(_KEY, ""))
        return _checked(about, tensors)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "its description"
        raise _unreadable(path, f"{where}: {first['msg']}") from error
    except ValueError as error:
        raise _unreadable(path, str(error).removeprefix(f"{path}: ")) from error


def check_fits(unknown: Unknown, embedding: int, channels: int, path: Path) -> None:
    """Raise CheckpointError if the number of features differs from that of the model."""
    blank = torch.zeros(1, channels, 1, 1, dtype=torch.uint8)
    found, needed = len(unknown.foreign.centre), embedding + appearance(blank).shape[1]
    if found != needed:
        raise _unreadable(path, f"it is about {found} features, and the model has {needed}")


def _checked(about: UnknownFacts, tensors: dict[str, Tensor]) -> Unknown:
    """Build an answer from its parts, or raise ValueError if they do not fit together."""
    if set(tensors) != {*_TENSORS, "fitted"}:
        raise ValueError(f"expected the tensors {', '.join(_TENSORS)} and fitted")
    fitted, size = tensors.pop("fitted"), len(tensors["centre"])
    square = ("known_precision", "part_precision")
    for name, tensor in tensors.items():
        shape = (size, size) if name in square else (size,) if name in _TENSORS[:3] else (2,)
        if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError(f"{name} does not fit the others, or is not finite")
    if fitted.shape != (about.images,) or fitted.dtype != torch.int64:
        raise ValueError("fitted does not fit the number of images")
    if not ((tensors["scale"] > 0).all() and (tensors["spread"] > 0).all()):
        raise ValueError("a scale is not above 0")
    foreign = Foreign(**{name: tensor.numpy() for name, tensor in tensors.items()})
    return Unknown(about, foreign, fitted.numpy())


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f'{path}: is not an "unknown" answer, or is damaged ({" ".join(why.split())[:200]}). '
        "Delete it, and fit it again with --coverage."
    )
