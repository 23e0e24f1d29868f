"""Classification: training and fine-tuning on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import Batch, build_evaluation_loader, build_training_loader
from convnextv2.data.notices import left_out_line
from convnextv2.data.sources import find_sources, summary
from convnextv2.data.transforms import build_batch_transform, build_preprocessing
from convnextv2.device import choose_precision
from convnextv2.errors import RecipeError
from convnextv2.evaluation.evaluate import autocast_logits, evaluate
from convnextv2.evaluation.losses import (
    asymmetric_multi_label,
    asymmetric_single_label,
    binary_cross_entropy,
    cross_entropy,
    jensen_shannon,
)
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.announce import say_notes
from convnextv2.training.batch import settle_batch
from convnextv2.training.build import build_network
from convnextv2.training.health import collapse
from convnextv2.training.optim import freeze
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class Classification:
    """Learn to classify images. See `training.task.Task`."""

    usual_loss = None  # not known: it depends on the loss and on the number of classes

    def __init__(self, start: Start) -> None:
        """Find the images and build the network, with `init` from a classifier or an FCMAE run.

        Args:
            start: How the run starts, and where.

        Raises:
            RecipeError: `num_classes` is less than the number of classes in the data.
        """
        recipe, self._place = start.recipe, start.place
        source, self._validation = find_sources(recipe, labelled=True)
        say_notes(source, self._validation)
        say(summary(source, self._validation))
        classes = source.class_names
        self._num_classes = recipe.num_classes or len(classes)
        if self._num_classes < len(classes):
            raise RecipeError(
                f"num_classes = {self._num_classes}: the training images have {len(classes)} "
                "classes. Use that, or leave it out."
            )
        torch.manual_seed(recipe.seed)
        self.model = build_network(recipe, self._num_classes)
        self.depths = self.model.depths
        class_names = name_rows(classes, self._num_classes)
        provenance = start.load_into(self.model, class_names, len(classes))
        freeze(self.model, recipe.freeze)
        preprocessing = build_preprocessing(recipe)
        copies = max(1, recipe.aug_splits)
        image_shape = recipe.in_channels, *preprocessing.image_size

        def trial(model: nn.Module, images: int) -> Tensor:
            """Run blank images, so that `settle_batch` finds out what a step takes."""
            device = next(model.parameters()).device
            blank = torch.zeros(images * copies, *image_shape, device=device)
            total: Tensor = model(blank).sum()
            return total

        self.recipe = recipe = settle_batch(recipe, self.model, trial, self._place, self.depths)
        self._to_images = build_batch_transform(recipe, self._num_classes)
        self._criterion = build_criterion(recipe)
        self._quarantine = Quarantine(start.run.path) if recipe.bad_images == "quarantine" else None
        self.loader = build_training_loader(recipe, source, self._place, self._quarantine)
        self.description = Description(
            kind="classifier",
            model=recipe.model,
            arguments=self.model.arguments,
            class_names=class_names,
            preprocessing=preprocessing.to_json(),
            provenance=provenance,
        )
        is_watched = self._validation is not None and recipe.val_while_train
        self.score = "top1" if is_watched else None

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the recipe's loss of a batch, which is normalised and mixed on the device."""
        device = self._place.device
        images, targets = self._to_images(
            batch.pixels.to(device), batch.targets.to(device), generator
        )
        return self._criterion(model(images), targets)

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model on the validation images.

        Every image is counted exactly once over all ranks.

        Returns:
            top1 and loss, and top5 if there are at least five classes.
        """
        assert self._validation is not None
        recipe, place = self.recipe, self._place
        images = build_evaluation_loader(
            recipe, self._validation, place, self._quarantine, self.loader.patience
        )
        dtype = choose_precision(recipe.precision, place.device)
        evaluation, _ = evaluate(
            autocast_logits(self.model, place, dtype),
            images,
            num_classes=self._num_classes,
            to_images=lambda pixels: self._to_images.normalise(pixels.to(place.device)),
            place=place,
        )
        if left_out := set().union(*place.gather(sorted(images.skipped))):
            say(f"{left_out_line(left_out, 'validation image')}.")
        if line := collapse(evaluation.precision, evaluation.support):
            say(line)
        figures = {name: getattr(evaluation, name) for name in ("top1", "top5", "loss")}
        return {name: value for name, value in figures.items() if value is not None}


def name_rows(classes: Sequence[str], rows: int) -> list[str]:
    """Name every row of a head by its class, or by its number if it has no class in the data."""
    taken = set(classes)
    rest = range(len(classes), rows)
    return [*classes, *(f"row {row}" if str(row) in taken else str(row) for row in rest)]


def build_criterion(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the recipe's loss, a function that maps (logits, targets) to a float32 scalar."""
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
