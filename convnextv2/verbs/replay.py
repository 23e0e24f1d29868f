"""Show a step that was not finite: its images, and the loss and gradient of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convnextv2.data.chance import stream
from convnextv2.data.transforms import BatchTransform, build_batch_transform
from convnextv2.device import choose_device, choose_precision
from convnextv2.distributed import Place
from convnextv2.errors import RunError
from convnextv2.evaluation.gallery import contact_sheet
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.run import Run, open_run
from convnextv2.tasks.classification.task import build_criterion
from convnextv2.training.bad_step import KeptStep, bad_steps, read_bad_step
from convnextv2.training.health import gradient_norm
from convnextv2.verbs.options import ReplayOptions
from convnextv2.weights.restore import load_model
from convnextv2.weights.safetensors import WEIGHTS


class Replayed(NamedTuple):
    """One image of the step, measured by itself.

    Attributes:
        name: The name of the image in the data set.
        target: Its class; empty without labels.
        pixels: uint8 (C, H, W), as the network got them.
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
        """Whether both the loss and the gradient norm are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


@takes(ReplayOptions)
def replay(options: ReplayOptions) -> list[Replayed]:
    """Run a step that was kept in bad_steps/ again, image by image.

    The images are those that the network got, cropped and augmented. Images are not mixed, and
    masks are drawn anew for each image. A step that failed only because of its mixture may
    therefore be finite here.

    Returns:
        Every image of the step on all ranks, the worst first.

    Raises:
        RunError: The run kept no such step.
        CheckpointError: The step that was kept cannot be read.
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
        device = choose_device(recipe.device)
        model, description = load_model(checkpoint / WEIGHTS)
        model.to(device).train()
        names, place = description.class_names, Place(device)
        images = [image for part in kept for image in _images(model, part, recipe, names, place)]
        images.sort(key=lambda image: (image.is_finite, -image.loss, -image.gradient_norm))
    _show(opened, images, number)
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
        raise RunError(f"{run.path}: no step of it was kept in bad_steps/, so all were finite.")
    numbers = sorted({part.step for part in found})
    wanted = numbers[-1] if step is None else step
    parts = [part for part in found if part.step == wanted]
    if not parts:
        raise RunError(f"step = {step}: not kept. There are: {', '.join(map(str, numbers))}.")
    return parts


def _checkpoint_before(run: Run, step: int) -> Path | None:
    """Find the newest checkpoint from before a step."""
    before = [path for path in run.checkpoints() if int(path.name.rpartition("-")[2]) < step]
    return before[-1] if before else None


def _images(
    model: nn.Module, kept: KeptStep, recipe: Recipe, class_names: list[str], place: Place
) -> list[Replayed]:
    transform = build_batch_transform(recipe, len(class_names))
    generator = stream(recipe.seed, "step", kept.step - 1, kept.rank)
    found = []
    for batch, names in zip(kept.batches, kept.names, strict=True):
        for pixels, target, name in zip(batch.pixels, batch.targets.tolist(), names, strict=True):
            loss, norm = _alone(model, pixels, target, recipe, transform, place, generator)
            label = class_names[target] if 0 <= target < len(class_names) else ""
            found.append(Replayed(name, label, pixels, loss, norm))
    return found


def _alone(
    model: nn.Module,
    pixels: Tensor,
    target: int,
    recipe: Recipe,
    transform: BatchTransform,
    place: Place,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Compute the loss and the gradient norm of one image."""
    image = transform.normalise(pixels[None].to(place.device))
    model.zero_grad(set_to_none=True)
    with place.autocast(choose_precision(recipe.precision, place.device)):
        if isinstance(model, FCMAE):
            grid = model.grid(*image.shape[-2:])
            visible, masked = draw_masks(1, grid, recipe.mask_ratio, generator)
            loss = model(image, visible.to(place.device), masked.to(place.device))
        else:
            expected = torch.tensor([target], device=place.device)
            loss = _criterion(recipe)(model(image), expected)
    loss.backward()
    return float(loss.detach()), float(gradient_norm(model.parameters()))


def _criterion(recipe: Recipe):  # type: ignore[no-untyped-def]
    """Build the recipe's loss. The jsd loss needs three versions of an image, so ce replaces it."""
    return build_criterion(
        recipe.model_copy(update={"loss": "ce"}) if recipe.loss == "jsd" else recipe
    )


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
    contact_sheet([image.pixels for image in images[:64]], titles[:64]).save(path)
    print(f"Picture: {path}")
