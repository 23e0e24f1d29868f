"""Supervised training and fine-tuning, from a recipe to a finished run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import Batch, build_evaluation_loader, build_training_loader
from convnextv2.data.notices import left_out_line
from convnextv2.data.sources import find_sources, summary
from convnextv2.data.transforms import build_batch_transform, describe_preprocessing
from convnextv2.distributed import Place, choose_precision, say
from convnextv2.errors import RecipeError
from convnextv2.evaluation.evaluate import evaluate
from convnextv2.evaluation.losses import (
    asymmetric_multi_label,
    asymmetric_single_label,
    binary_cross_entropy,
    cross_entropy,
    jensen_shannon,
)
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.training.assembly import build_network, load_init, say_notes, train_model
from convnextv2.training.batch import resolve_batch
from convnextv2.training.health import collapse
from convnextv2.training.memory import memory_notes
from convnextv2.training.optim import freeze
from convnextv2.weights.files import Description


def train_supervised(recipe: Recipe, run: Run, place: Place) -> None:
    """Train a classifier on labelled images; with `init`, from weights of a classifier or of FCMAE."""
    source, validation = find_sources(recipe, labelled=True)
    say_notes(source, validation)
    say(summary(source, validation))
    num_classes = recipe.num_classes or len(source.class_names)
    if num_classes < len(source.class_names):
        raise RecipeError(
            f"num_classes = {num_classes}: the training images have {len(source.class_names)} classes. Use that, or leave it out."
        )
    torch.manual_seed(recipe.seed)
    model = build_network(recipe, num_classes)
    # A head with more rows than the data have classes: the rest goes by number.
    rest = range(len(source.class_names), num_classes)
    taken = set(source.class_names)
    waiting = [f"row {row}" if str(row) in taken else str(row) for row in rest]
    class_names = [*source.class_names, *waiting]
    provenance = load_init(recipe, model, run, class_names, len(source.class_names))
    freeze(model, recipe.freeze)
    dtype = choose_precision(recipe.precision, place.device)
    preprocessing = describe_preprocessing(recipe)
    asked = recipe.batch_size

    def trial(trained: nn.Module, n: int) -> Tensor:
        shape = (n * max(1, recipe.aug_splits), recipe.in_channels, *preprocessing["image_size"])
        loss: Tensor = trained(torch.zeros(shape, device=next(trained.parameters()).device)).sum()
        return loss

    recipe = resolve_batch(recipe, model, trial, precision=dtype, place=place, depths=model.depths)
    if asked != "auto":
        for line in memory_notes(
            model,
            trial,
            batch_size=recipe.images_per_batch(),
            averaged=recipe.ema,
            precision=dtype,
            place=place,
        ):
            say(line)

    to_training_images = build_batch_transform(recipe, num_classes)
    criterion = build_criterion(recipe)
    quarantine = Quarantine(run.path) if recipe.bad_images == "quarantine" else None
    loader = build_training_loader(recipe, source, place, quarantine)

    def loss_fn(trained: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        images, targets = to_training_images(
            batch.pixels.to(place.device), batch.targets.to(place.device), generator
        )
        return criterion(trained(images), targets)

    def validate() -> dict[str, float]:
        assert validation is not None
        images = build_evaluation_loader(recipe, validation, place, quarantine, loader.patience)
        evaluation, _ = evaluate(
            autocast_logits(model, place, dtype),
            images,
            num_classes=num_classes,
            to_images=lambda pixels: to_training_images.normalise(pixels.to(place.device)),
            place=place,
        )
        if left_out := set().union(*place.gather(sorted(images.skipped))):
            say(f"{left_out_line(left_out, 'validation image')}.")
        if line := collapse(evaluation.precision, evaluation.support):
            say(line)
        return {
            name: value
            for name in ("top1", "top5", "loss")
            if (value := getattr(evaluation, name)) is not None
        }

    description = Description(
        kind="classifier",
        model=recipe.model,
        arguments=model.arguments,
        class_names=class_names,
        preprocessing=preprocessing,
        provenance=provenance,
    )
    watched = validation is not None and recipe.val_while_train
    train_model(
        recipe,
        run,
        place,
        model,
        description,
        loader,
        loss_fn,
        depths=model.depths,
        evaluate=validate if watched else None,
    )


def build_criterion(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's loss: (logits, targets) to a float32 scalar."""
    if recipe.loss in ("ce", "bce"):
        plain = {"ce": cross_entropy, "bce": binary_cross_entropy}[recipe.loss]
        return lambda logits, targets: plain(
            logits, targets, recipe.label_smoothing, recipe.loss_reduction
        )
    of: Callable[[Tensor, Tensor, float], Tensor] = {
        "asl_single_label": asymmetric_single_label,
        "asl_multi_label": asymmetric_multi_label,
        "jsd": jensen_shannon,
    }[recipe.loss]
    return lambda logits, targets: of(logits, targets, recipe.label_smoothing)


def autocast_logits(
    model: nn.Module, place: Place, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Images to float32 logits, in the precision of training."""

    def logits(images: Tensor) -> Tensor:
        with place.autocast(dtype):
            return model(images).float()

    return logits
