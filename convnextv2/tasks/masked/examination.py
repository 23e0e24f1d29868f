"""Examinations of a pre-training run after some of its epochs: its health, and probes.

They look at fixed images, draw masks of their own, and change nothing, so that a run learns the
same with them and without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from convnextv2.console import say
from convnextv2.data.build_transforms import build_batch_transform
from convnextv2.data.loader import build_evaluation_loader
from convnextv2.data.notices import none_readable, say_left_out
from convnextv2.data.randomness import generator_for
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.distributed import Place
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.feature_health import examine_layers, layer_names
from convnextv2.evaluation.probes import probe_features
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.masked.task import MaskedPretraining
from convnextv2.training.health import feature_warnings
from convnextv2.training.loop_settings import is_due
from convnextv2.training.start import Start
from convnextv2.training.task import Examine, Examined

HEALTH_IMAGES = 64
"""The number of images on which the health of the features is measured."""
PROBE_IMAGES = 10_000
"""The largest number of training images, and of validation images, of a probe."""
NEIGHBOURS = 20
_BATCH = 16


def build_examination(task: MaskedPretraining, start: Start) -> Examine | None:
    """Build what examines a pre-training run, as its recipe says.

    Args:
        task: The task of the run.
        start: How the run starts, and where.

    Returns:
        The examinations; None if the recipe asks for none.

    Raises:
        DataError: A probe is asked for, and there are no labelled images, or none for validation.
    """
    recipe, place = task.recipe, start.place
    kinds: list[tuple[str, int, Health | Probe]] = []
    if recipe.health_every_epochs is not None:
        kinds.append(("health", recipe.health_every_epochs, Health(task, start.run, place)))
    if recipe.probe_every_epochs is not None:
        kinds.append(("probe", recipe.probe_every_epochs, Probe(task, place)))
    if not kinds:
        return None

    def examine(epoch: int, last: int) -> Iterator[Examined]:
        if not place.is_main:
            return
        # A run that was stopped before its first step may have the records of epoch 0 already.
        done = {(record["kind"], record["epoch"]) for record in start.run.metrics()}
        for kind, every, examination in kinds:
            if is_due(epoch, every=every, last=last) and (kind, epoch) not in done:
                yield examination()

    return examine


class Health:
    """Measures the features and the gradients of every layer on a fixed set of images.

    The features are those of whole images, as fine-tuning sees them. The gradients are those of the
    masked reconstruction, with masks that are always the same.

    Args:
        task: The task of the run.
        run: The run, whose first record shows what has changed.
        place: This rank.
    """

    def __init__(self, task: MaskedPretraining, run: Run, place: Place) -> None:
        self._task, self._run, self._place = task, run, place
        self._pixels: Tensor | None = None

    def __call__(self) -> Examined:
        """Measure the model as it is."""
        model, recipe = self._task.model, self._task.recipe
        images = _normalised(recipe, self._fixed_pixels(), self._place)
        layers = examine_layers(model.encoder, images)
        figures = {name: [asdict(layer)[name] for layer in layers] for name in _FIGURES}
        norms, rest = gradient_norms(model, images, recipe.mask_ratio, recipe.seed)
        record = {
            "kind": "health",
            "images": len(images),
            "layers": [layer.name for layer in layers],
            **{name: [_finite(value) for value in values] for name, values in figures.items()},
            "gradient_norm": [_finite(norms[layer.name]) for layer in layers],
            "gradient_norm_rest": {name: _finite(value) for name, value in rest.items()},
            "mean_diversity": _mean(figures["diversity"]),
            "dead_share": _mean(figures["dead"]),
            "saturated_share": _mean(figures["saturated"]),
            "mean_effective_rank": _mean(figures["effective_rank"]),
        }
        earlier = (each for each in self._run.metrics() if each["kind"] == "health")
        warnings = feature_warnings(record, next(earlier, None))
        diversity, dead = record["mean_diversity"], record["dead_share"]
        said = "not finite" if diversity is None else f"{diversity:.3f}"
        line = f"health: feature diversity {said}, dead channels {dead or 0:.1%}"
        return Examined(record | {"warnings": warnings}, [line, *warnings])

    def _fixed_pixels(self) -> Tensor:
        """Return the images, uint8 (N, C, H, W); they are read once."""
        if self._pixels is None:
            recipe = self._task.recipe
            source, validation = find_sources(recipe, labelled=False)
            chosen = (validation or source).spread(HEALTH_IMAGES)
            parts = [pixels for pixels, _ in _batches(recipe, chosen, self._place, "health image")]
            self._pixels = torch.cat(parts)
        return self._pixels


_FIGURES = ("diversity", "dead", "saturated", "effective_rank", "grn_gamma", "grn_beta")


def gradient_norms(
    model: FCMAE, images: Tensor, mask_ratio: float, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute the 2-norm of the gradient of the reconstruction loss in each part of a model.

    The parameters' own gradients are not touched.

    Args:
        model: The model.
        images: float32 (N, C, H, W), normalised.
        mask_ratio: Share of the tiles that is hidden.
        seed: The seed of the masks.

    Returns:
        The norm of each block of the encoder by its name, and those of the rest: "stem" (with the
        downsampling layers), "decoder" (with all that predicts) and "all".
    """
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    parameters = [parameter for _, parameter in named]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    generator = generator_for(seed, "health")
    visible, masked = draw_masks(len(images), model.grid(*images.shape[-2:]), mask_ratio, generator)
    for part in torch.arange(len(images)).split(_BATCH):
        chosen = part.to(images.device)
        masks = (indices[part].to(images.device) for indices in (visible, masked))
        with torch.enable_grad():
            # `forward` itself, because a compiled call would compile for this batch size too.
            loss = model.forward(images[chosen], *masks)
            assert isinstance(loss, Tensor)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for total, gradient in zip(sums, found, strict=True):
            if gradient is not None:
                total += gradient * (len(part) / len(images))
    squares: dict[str, float] = {}
    for (name, _), total in zip(named, sums, strict=True):
        part_of_model = _part_of(name)
        squares[part_of_model] = squares.get(part_of_model, 0.0) + float(total.float().norm()) ** 2
    roots = {name: math.sqrt(value) for name, value in squares.items()}
    blocks = {name: roots.pop(name, 0.0) for name in layer_names(model.encoder)}
    return blocks, roots | {"all": math.sqrt(sum(squares.values()))}


def _part_of(name: str) -> str:
    """Return the part of FCMAE that a parameter belongs to, see `gradient_norms`."""
    own = name.removeprefix("encoder.")
    if own == name:
        return "decoder"
    if not own.startswith("stages."):
        return "stem"
    _, stage, block, *_ = own.split(".")
    return f"{int(stage) + 1}.{int(block) + 1}"


class Probe:
    """Measures on labelled images how well the frozen features predict the classes.

    The figures are those of the verb `probe` if each set has at most `PROBE_IMAGES` images.

    Args:
        task: The task of the run.
        place: This rank.

    Raises:
        DataError: There are no labelled images, or none for validation.
    """

    def __init__(self, task: MaskedPretraining, place: Place) -> None:
        self._task, self._place = task, place
        recipe = task.recipe
        if recipe.probe_dir:
            recipe = recipe.model_copy(update={"data_dir": recipe.probe_dir, "dataset": ""})
        try:
            training, validation = find_sources(recipe, labelled=True)
        except DataError as error:
            raise DataError(
                f"{error} probe_every_epochs needs labelled images: leave it out, or name others "
                "with probe_dir."
            ) from error
        if training.is_multi_label:
            raise RecipeError(
                f"probe_every_epochs = {recipe.probe_every_epochs}: images of {recipe.data_dir} "
                "have several labels each, and probes need one class. Leave it out, or name other "
                "images with probe_dir."
            )
        if validation is None:
            raise DataError(
                f"{recipe.data_dir}: has no validation images for probe_every_epochs. Set "
                "val_fraction, add a folder val, or name other images with probe_dir."
            )
        if shared := set(training.names) & set(validation.names):
            raise DataError(
                f"{recipe.data_dir}: {len(shared)} of {len(validation)} validation images are "
                f"training images too, for example {min(shared)}, so that probe_every_epochs would "
                "measure nothing. Choose another val_split."
            )
        self._classes = len(training.class_names)
        self._training = training.spread(PROBE_IMAGES)
        self._validation = validation.spread(PROBE_IMAGES)
        say(
            f"Probes: {len(self._training):,} training and {len(self._validation):,} validation "
            f"images of {self._classes} classes."
        )

    def __call__(self) -> Examined:
        """Probe the model as it is."""
        features, labels = self._embed(self._training, "probe's training image")
        queries, truth = self._embed(self._validation, "probe's validation image")
        found = probe_features(
            features, labels, queries, truth, classes=self._classes, k=NEIGHBOURS
        )
        record = {
            "kind": "probe",
            "knn": found.knn,
            "linear": found.linear,
            "commonest": found.commonest,
            "l2": found.l2,
            "training_images": found.training_images,
            "validation_images": found.validation_images,
        }
        line = f"probe: nearest neighbours {found.knn:.2%}, linear {found.linear:.2%}"
        return Examined(record, [line])

    def _embed(self, source: Source, what: str) -> tuple[Tensor, Tensor]:
        """Compute pooled features, float32 (N, D), and return them with the labels, int64 (N,)."""
        recipe, encoder = self._task.recipe, self._task.model.encoder
        features, labels = [], []
        with torch.inference_mode():
            for pixels, targets in _batches(recipe, source, self._place, what):
                images = _normalised(recipe, pixels, self._place)
                features.append(encoder.encode(images).float().mean((1, 2)).cpu())
                labels.append(targets)
        return torch.cat(features), torch.cat(labels)


def _batches(
    recipe: Recipe, source: Source, place: Place, what: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pixels, uint8 (N, C, H, W), and targets, int64 (N,), of the images that can be read.

    Raises:
        DataError: None can be read, or one cannot and `bad_images` is "fail".
    """
    alone = Place(place.device)  # the other ranks do not take part
    loader = build_evaluation_loader(recipe, source, alone)
    read = 0
    for batch in loader:
        read += len(batch.indices)
        yield batch.pixels, batch.targets
    say_left_out(loader.skipped, what)
    if not read:
        raise none_readable(source.names, what)


def _normalised(recipe: Recipe, pixels: Tensor, place: Place) -> Tensor:
    """Turn pixels into images on the device."""
    return build_batch_transform(recipe, num_classes=0).normalise(pixels.to(place.device))


def _finite(value: float | None) -> float | None:
    """Return the number, or None if JSON cannot represent it."""
    return value if value is not None and math.isfinite(value) else None


def _mean(values: Iterable[float]) -> float | None:
    """Return the mean, or None if it is not finite."""
    return _finite(float(np.mean(list(values))))
