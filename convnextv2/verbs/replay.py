"""Show a step with a non-finite loss or gradient: its images, and the figures of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convnextv2.checkpoint import read_checkpoint
from convnextv2.console import print_json
from convnextv2.data.build_transforms import build_batch_transform, build_preprocessing
from convnextv2.data.randomness import generator_for
from convnextv2.device import choose_device, choose_precision
from convnextv2.distillation.lessons import Lessons, build_lessons
from convnextv2.distillation.teacher import open_teacher
from convnextv2.distillation.tiles import TileLessons, build_tile_lessons
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError, RunError
from convnextv2.evaluation.balance import build_balance
from convnextv2.evaluation.gallery import contact_sheet
from convnextv2.files import replacing
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.run import Run, open_run
from convnextv2.tasks.classification.goal import build_criterion
from convnextv2.tasks.detection.goal import detection_loss
from convnextv2.tasks.multi_label.goal import build_label_criterion
from convnextv2.training.bad_step import KeptStep, bad_steps, read_bad_step
from convnextv2.training.gradients import seed_from
from convnextv2.training.health import gradient_norm
from convnextv2.verbs.options.learning import ReplayOptions
from convnextv2.weights.build import Network
from convnextv2.weights.description import Description
from convnextv2.weights.restore import load_model
from convnextv2.weights.safetensors import WEIGHTS

Criterion = Callable[[Tensor, Tensor], Tensor]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""The types of class numbers."""


class Replayed(NamedTuple):
    """One image of the step, measured by itself.

    Attributes:
        name: The name of the image in the data set.
        target: The name of its class; empty without labels.
        pixels: uint8 (C, H, W), as the network saw them.
        loss: The loss of this image.
        gradient_norm: The norm of the gradient of this image.
    """

    name: str
    target: str
    pixels: Tensor
    loss: float
    gradient_norm: float

    @property
    def is_finite(self) -> bool:
        """True if both the loss and the gradient norm are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@takes(ReplayOptions)
def replay(options: ReplayOptions) -> list[Replayed]:
    """Run a step that was kept in bad_steps/ again, image by image.

    The images are those that the network saw, cropped and augmented. They are not mixed, and new
    masks are drawn for each. A step that failed only because of mixed images or of its masks may
    therefore be finite here.

    Returns:
        Every image of the step on all ranks, the worst first.

    Raises:
        RunError: The run kept no such step.
        CheckpointError: The step that was kept cannot be read, or belongs to another network.
    """
    opened = open_run(Path(options.run))
    kept = _kept(opened, options.step)
    number = kept[0].step
    recipe, checkpoint = opened.recipe, _checkpoint_before(opened, number)
    if checkpoint is None:
        print(
            f"{opened.path}: has no checkpoint from before step {number}, so only images are shown."
        )
        images = [image for part in kept for image in _unmeasured(part)]
    else:
        print(f"Step {number} with the weights of {checkpoint}.")
        measured = _Measured(recipe, checkpoint)
        images = [image for part in kept for image in measured.images(part)]
        images.sort(key=lambda image: (image.is_finite, -image.loss, -image.gradient_norm))
    _show(opened, images, number)
    keys = ("name", "target", "loss", "gradient_norm")
    print_json([{key: getattr(image, key) for key in keys} for image in images])
    return images


def _unmeasured(kept: KeptStep) -> list[Replayed]:
    return [
        Replayed(name, "", pixels, math.nan, math.nan)
        for batch, names in zip(kept.batches, kept.names, strict=True)
        for pixels, name in zip(batch.pixels, names, strict=True)
    ]


def _kept(run: Run, step: int | None) -> list[KeptStep]:
    found = [read_bad_step(path) for path in bad_steps(run.path)]
    if not found:
        raise RunError(f"{run.path}: no step was kept in bad_steps/, so all steps were finite.")
    numbers = sorted({part.step for part in found})
    wanted = numbers[-1] if step is None else step
    parts = [part for part in found if part.step == wanted]
    if not parts:
        raise RunError(f"step = {step}: not kept. There are: {', '.join(map(str, numbers))}.")
    if not any(part.batches for part in parts):
        raise RunError(f"{run.path}: of step {wanted}, no images were kept.")
    return parts


def _checkpoint_before(run: Run, step: int) -> Path | None:
    """Find the newest checkpoint from before a step."""
    before = [path for path in run.checkpoints() if int(path.name.rpartition("-")[2]) < step]
    return before[-1] if before else None


def _lessons(
    recipe: Recipe,
    model: Network,
    checkpoint: Path,
    class_names: list[str],
    device: torch.device,
) -> Lessons | TileLessons | None:
    """Open the teacher of the run, and load the weights that are trained beside the network."""
    if not recipe.teacher:
        return None
    preprocessing = build_preprocessing(recipe)
    teacher = open_teacher(recipe.teacher, device, preprocessing)
    lessons: Lessons | TileLessons
    if isinstance(model, FCMAE):
        lessons = build_tile_lessons(recipe, teacher, model, preprocessing)
    else:
        assert isinstance(model, ConvNeXtV2)
        lessons = build_lessons(recipe, teacher, model, class_names, preprocessing)
    model.load_state_dict(read_checkpoint(checkpoint).beside, strict=False)
    return lessons


class _Measured:
    """The model of a run with the weights of a checkpoint, which measures images one by one.

    Args:
        recipe: The recipe of the run.
        checkpoint: The folder of the checkpoint.
    """

    def __init__(self, recipe: Recipe, checkpoint: Path) -> None:
        self._recipe, self._place = recipe, Place(choose_device(recipe.device))
        model, description = load_model(checkpoint / WEIGHTS)
        self._names, self._kind = description.class_names, description.kind
        self._criterion: Criterion | None = None
        if not isinstance(model, FCMAE | Segmentor | Detector):
            self._criterion = _criterion(recipe, description, self._place.device)
        if description.kind == "multi_label" and recipe.pos_weight == "balanced":
            print("pos_weight is left out, because it depends on all training images.")
        self._lessons = _lessons(recipe, model, checkpoint, self._names, self._place.device)
        self._model = model.to(self._place.device).train()
        self._transform = build_batch_transform(recipe, len(self._names))

    def images(self, kept: KeptStep) -> list[Replayed]:
        """Measure the images of a step on one rank."""
        generator = generator_for(self._recipe.seed, "step", kept.step - 1, kept.rank)
        found = []
        for batch, names in zip(kept.batches, kept.names, strict=True):
            for pixels, target, name in zip(batch.pixels, batch.targets, names, strict=True):
                self._check(kept.step, pixels, target, name)
                loss, norm = self._measure(pixels, target, generator)
                found.append(Replayed(name, _label(target, self._names), pixels, loss, norm))
        return found

    def _check(self, step: int, pixels: Tensor, target: Any, name: str) -> None:
        """Check that an image and its target are for this network.

        Raises:
            CheckpointError: They are not.
        """
        why, channels = "", self._recipe.in_channels
        if len(pixels) != channels:
            why = f"it has {len(pixels)} channels, expected {channels}"
        elif not _fits(target, pixels, self._kind, len(self._names)):
            why = "its target is that of another task or of other classes"
        if why:
            raise CheckpointError(
                f"bad_steps/: step {step} is not of this run: {name}: {why}. Remove its files."
            )

    def _measure(
        self, pixels: Tensor, target: Any, generator: torch.Generator
    ) -> tuple[float, float]:
        """Compute the loss and the gradient norm of one image."""
        image = self._transform.normalise(pixels[None].to(self._place.device))
        self._model.zero_grad(set_to_none=True)
        dtype = choose_precision(self._recipe.precision, self._place.device)
        with self._place.autocast(dtype):
            loss = self._loss(image, target, generator)
        loss.backward()
        return float(loss.detach()), float(gradient_norm(self._model.parameters()))

    def _loss(self, image: Tensor, target: Any, generator: torch.Generator) -> Tensor:
        """Compute the loss of one image, (1, C, H, W), by the kind of the model."""
        model, device = self._model, self._place.device
        if isinstance(model, Detector):
            seed_from(generator)
            return detection_loss(model, model, image, [target])
        if isinstance(model, Segmentor):
            logits, auxiliary = model(image)
            weight = self._recipe.auxiliary_weight
            return segmentation_loss(logits, auxiliary, target[None].to(device), weight)
        if isinstance(model, FCMAE):
            masks = draw_masks(1, model.grid(*image.shape[-2:]), self._recipe.mask_ratio, generator)
            visible, masked = (indices.to(device) for indices in masks)
            if isinstance(self._lessons, TileLessons):
                return self._lessons.loss(model, image, visible, masked)
            reconstruction_loss: Tensor = model(image, visible, masked)
            return reconstruction_loss
        criterion, expected = self._criterion, target[None].to(device)
        assert criterion is not None

        def on_label(logits: Tensor) -> Tensor:
            is_unlabelled = target.dim() == 0 and target < 0
            return logits.sum() * 0 if is_unlabelled else criterion(logits, expected)

        if isinstance(self._lessons, Lessons):
            return self._lessons.loss(model, image, on_label)
        return on_label(model(image))


def _fits(target: Any, pixels: Tensor, kind: str, classes: int) -> bool:
    """Return whether a target is one that a network learns from.

    Args:
        target: The target of one image.
        pixels: The pixels of the image.
        kind: The kind of the network; see `Description.kind`.
        classes: The number of its classes.
    """
    if kind == "fcmae":
        return True
    if kind == "detection":
        if not isinstance(target, dict) or not {"size", "boxes", "labels"} <= target.keys():
            return False
        target, shape = target["labels"], target["boxes"].shape[:1]
    else:
        shape = {"multi_label": (classes,), "segmentation": pixels.shape[1:]}.get(kind, ())
    if not isinstance(target, Tensor) or target.shape != shape or target.dtype not in _INTEGERS:
        return False
    limit = 2 if kind == "multi_label" else classes
    return bool(((target >= -1) & (target < limit)).all())


def _label(target: Any, class_names: list[str]) -> str:
    """Name the class of an image, or its labels if it may have several. A label map has no name."""
    if isinstance(target, dict):  # objects
        target = target["labels"].unique()
        return ", ".join(class_names[k] for k in target.tolist() if k < len(class_names))
    if target.dim() == 2:
        return ""
    classes = target.eq(1).nonzero().flatten() if target.dim() else target[None]
    return ", ".join(class_names[k] for k in classes.tolist() if 0 <= k < len(class_names))


def _criterion(recipe: Recipe, description: Description, device: torch.device) -> Criterion:
    """Build the loss of a run. jsd needs three versions of an image, so ce replaces it.

    With several labels, a balanced `pos_weight` is left out, because it depends on all images.
    """
    if description.kind == "multi_label":
        return build_label_criterion(recipe)
    if recipe.loss == "jsd":
        recipe = recipe.model_copy(update={"loss": "ce"})
    names = description.class_names
    # Runs of older versions neither state nor use the frequencies of their classes.
    counts = description.balance.get("class_counts", [1] * len(names))
    return build_criterion(recipe, build_balance(recipe, np.array(counts), names), device)


def _show(run: Run, images: list[Replayed], step: int) -> None:
    bad = [image for image in images if not image.is_finite]
    print(f"{len(bad)} of {len(images)} images are not finite.")
    print(f"{'loss':>12}  {'gradient':>12}  {'pixels':>9}  image")
    for image in images[:20]:
        low, high = int(image.pixels.min()), int(image.pixels.max())
        label = f" ({image.target})" if image.target else ""
        print(
            f"{image.loss:>12.5g}  {image.gradient_norm:>12.5g}  {f'{low}-{high}':>9}  "
            f"{image.name}{label}"
        )
    if len(images) > 20:
        print(f"... and {len(images) - 20} more, with smaller losses.")
    path = run.path / "bad_steps" / f"step-{step:08d}.png"
    titles = [f"loss {image.loss:.4g}, gradient {image.gradient_norm:.4g}" for image in images]
    with replacing(path) as temporary:
        contact_sheet([image.pixels for image in images[:64]], titles[:64]).save(temporary, "PNG")
    print(f"Picture: {path}")
