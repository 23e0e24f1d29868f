"""Training and fine-tuning on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_batch_transform, build_preprocessing
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import build_evaluation_loader, build_training_loader
from convnextv2.data.notices import say_left_out
from convnextv2.data.source import Source
from convnextv2.data.sources import summary
from convnextv2.device import choose_precision, to_device
from convnextv2.distillation.lessons import build_lessons
from convnextv2.distillation.record import with_teacher
from convnextv2.distillation.teacher import open_teacher
from convnextv2.errors import RecipeError
from convnextv2.evaluation.evaluate import autocast_logits
from convnextv2.evaluation.gallery import as_rgb, to_pixels
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.preview import Shown, describe_targets
from convnextv2.tasks.supervised.goal import LabelGoal
from convnextv2.training.announce import announce_images, scratch_line
from convnextv2.training.batch_size import settle_batch
from convnextv2.training.build import build_network
from convnextv2.training.image_size import settle_image_size
from convnextv2.training.optim import freeze
from convnextv2.training.shard import skeleton
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class Supervised:
    """Learn from labelled images. See `training.task.Task`."""

    baseline_loss = None  # not known: it depends on the loss and on the number of classes

    def __init__(
        self, start: Start, sources: tuple[Source, Source | None], goal: LabelGoal
    ) -> None:
        """Build the network. The knob `init` starts it from another classifier or an FCMAE run.

        Args:
            start: The start of the run: its recipe, folder, ranks and initial weights.
            sources: The images for training and for validation.
            goal: The goal: one class for each image, or any number of labels.

        Raises:
            RecipeError: `num_classes` is less than the number of classes in the data.
        """
        recipe, self._place = start.recipe, start.place
        self._goal, (source, self.validation) = goal, sources
        goal.check(recipe, source, self.validation)
        announce_images(start, source, self.validation, summary(source, self.validation))
        if line := scratch_line(start.way, len(source)):
            say(line)
        classes = source.class_names
        self._num_classes = count_rows(recipe, classes)
        self.model = self._build_model(recipe, goal.initial_bias(recipe, source))
        self.depths = self.model.depths
        class_names = name_rows(classes, self._num_classes)
        provenance = start.load_into(self.model, class_names, len(classes))
        freeze(self.model, recipe.freeze, grn=recipe.freeze_grn)
        recipe = settle_image_size(recipe, self.model, len(source), self._place)
        preprocessing = build_preprocessing(recipe)
        teacher = self._lessons = None
        if recipe.teacher:
            teacher = open_teacher(recipe.teacher, self._place.device, preprocessing)
            self._lessons = build_lessons(recipe, teacher, self.model, classes, preprocessing)
        provenance = with_teacher(provenance, teacher, start)
        self._versions = max(1, recipe.aug_splits)
        self._image_shape = recipe.in_channels, *preprocessing.image_size
        self.recipe = recipe = settle_batch(
            recipe, self.model, self._trial, self._place, self.depths, images=len(source)
        )
        self._to_images = build_batch_transform(recipe, self._num_classes)
        criterion = goal.criterion(recipe, source, self.validation, class_names, self._place.device)
        self._criterion, balance = criterion.loss, criterion.balance
        if self._lessons is not None:
            balance = self._lessons.balance(balance)
        self._quarantine = Quarantine(start.run.path) if recipe.bad_images == "quarantine" else None
        self.loader = build_training_loader(recipe, source, self._place, self._quarantine)
        self.description = Description(
            kind=goal.kind,
            model=recipe.model,
            arguments=self.model.arguments,
            class_names=class_names,
            preprocessing=preprocessing.to_json(),
            provenance=provenance,
            balance=balance,
        )
        self.best_description = self.description
        is_watched = self.validation is not None and recipe.val_while_train
        self.score = goal.score(recipe) if is_watched else None
        for line in criterion.lines:
            say(line)

    def _build_model(self, recipe: Recipe, bias: Tensor | None) -> ConvNeXtV2:
        """Build the network with random weights, and with these biases in its head."""
        torch.manual_seed(recipe.seed)
        with skeleton(recipe.shard, self._place):
            model = build_network(recipe, self._num_classes)
        if bias is not None:  # rows that come from the initial weights replace these
            assert model.head is not None
            with torch.no_grad():
                model.head.bias[: len(bias)] = bias
        return model

    def _trial(self, model: nn.Module, images: int) -> Tensor:
        """Run blank images, so that `settle_batch` can measure the memory that a step takes."""
        device = next(model.parameters()).device
        blank = torch.zeros(images * self._versions, *self._image_shape, device=device)
        if self._lessons is not None:
            return self._lessons.loss(model, blank, Tensor.sum)
        total: Tensor = model(blank).sum()
        return total

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the recipe's loss of a batch, which is normalised and mixed on the device."""
        if self._lessons is None:
            images, targets = self._prepared(batch, generator)
            return self._criterion(model(images), targets)
        images, targets = self._labelled_first(batch, generator)
        return self._lessons.loss(model, images, lambda logits: self._on_labels(logits, targets))

    def _prepared(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalise and mix a batch on the device; see `BatchTransform`."""
        device = self._place.device
        pixels, targets = to_device(batch.pixels, device), to_device(batch.targets, device)
        return self._to_images(pixels, targets, generator)

    def _labelled_first(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prepare a batch in which images may have no label. They are mixed among themselves.

        Returns:
            The images, those with labels first, and the targets of these.
        """
        known = batch.targets >= 0
        if bool(known.all()):
            return self._prepared(batch, generator)
        images, targets = zip(
            *(self._prepared(part_of(batch, chosen), generator) for chosen in (known, ~known)),
            strict=True,
        )
        return torch.cat(images), targets[0]

    def _on_labels(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss on the labels, which the first images have; 0 if none has one."""
        if not len(targets):
            return logits.sum() * 0  # the head takes part in every step, as all ranks expect
        return self._criterion(logits[: len(targets)], targets)

    def shown(self, batch: Batch, generator: torch.Generator) -> list[Shown]:
        """Prepare a batch as the loss does, and return its images with their classes."""
        prepare = self._prepared if self._lessons is None else self._labelled_first
        images, targets = prepare(batch, generator)
        transform = self._to_images
        pixels = to_pixels(images, transform.mean, transform.std).cpu()
        titles = describe_targets(
            targets,
            self.description.class_names,
            multi_label=self.description.kind == "multi_label",
        )
        # Versions of one image have one label; images without labels come last.
        titles += ["no label"] * (len(pixels) // self._versions - len(titles))
        return [Shown(as_rgb(each), titles[i % len(titles)]) for i, each in enumerate(pixels)]

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model on the validation images.

        Returns:
            The figures of the goal, by name.
        """
        assert self.validation is not None
        recipe, place = self.recipe, self._place
        loader = build_evaluation_loader(
            recipe, self.validation, place, self._quarantine, self.loader.storage_wait
        )
        dtype = choose_precision(recipe.precision, place.device)
        figures, thresholds = self._goal.evaluate(
            autocast_logits(self.model, place, dtype),
            loader,
            images=len(self.validation),
            num_classes=self._num_classes,
            to_images=lambda pixels: self._to_images.normalise(pixels.to(place.device)),
            place=place,
        )
        say_left_out(loader.skipped_anywhere(place), "validation image")
        self.best_description = replace(self.description, thresholds=thresholds)
        return figures


def part_of(batch: Batch, chosen: Tensor) -> Batch:
    """Take the images of a batch that `chosen`, bool (N,), marks. A missing label becomes 0."""
    # The pixels are taken as they lie in memory, channels last.
    pixels = batch.pixels.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2)
    return Batch(pixels, batch.targets[chosen].clamp(min=0), batch.indices[chosen])


def count_rows(recipe: Recipe, classes: Sequence[str]) -> int:
    """Return the number of rows of a head.

    Args:
        recipe: The recipe, which may name a number.
        classes: The classes of the training images.

    Raises:
        RecipeError: The recipe names fewer rows than there are classes.
    """
    rows = recipe.num_classes or len(classes)
    if rows < len(classes):
        raise RecipeError(
            f"num_classes = {rows}: the training images have {len(classes)} classes. Use that, or "
            "leave it out."
        )
    return rows


def name_rows(classes: Sequence[str], rows: int) -> list[str]:
    """Name every row of a head by its class, or by its number if it has no class in the data."""
    taken = set(classes)
    rest = range(len(classes), rows)
    return [*classes, *(f"row {row}" if str(row) in taken else str(row) for row in rest)]
