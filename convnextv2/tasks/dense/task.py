"""Training on annotated images, for segmentation and detection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_batch_transform
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import build_evaluation_loader, build_training_loader
from convnextv2.data.notices import say_left_out
from convnextv2.device import to_device
from convnextv2.errors import RecipeError
from convnextv2.tasks.dense.goal import DenseGoal
from convnextv2.tasks.preview import Shown
from convnextv2.training.announce import announce_images, scratch_line
from convnextv2.training.batch_size import settle_batch
from convnextv2.training.optim import freeze
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class Dense:
    """Learn from annotated images. See `training.task.Task`."""

    baseline_loss = None  # not known: it depends on the annotations

    def __init__(self, start: Start, goal: DenseGoal) -> None:
        """Find the images, scan their annotations, and build the network.

        Args:
            start: The start of the run: its recipe, folder, ranks and initial weights.
            goal: The goal: segmentation or detection.

        Raises:
            MissingPackageError: A package that reads the annotations is not installed.
            DataError: The annotations cannot be used; the message lists all defects.
            RecipeError: The images are smaller than the network can take, or the recipe asks for
                something that the annotations do not have.
        """
        recipe, self._place, self._goal = start.recipe, start.place, goal
        source, self.validation = goal.find(recipe, self._place)
        summary = goal.summary(source, self.validation)
        announce_images(start, source, self.validation, summary)
        is_watched = self.validation is not None and recipe.val_while_train
        if self.validation is not None and is_watched:
            goal.check_validation(self.validation)
        if line := scratch_line(start.way, len(source), classifies=False):
            say(line)
        self.class_names = source.class_names
        torch.manual_seed(recipe.seed)
        self.model = goal.build_model(recipe, self._place, source)
        encoder = self.model.encoder
        self.depths = encoder.depths
        provenance = start.load_into(self.model, self.class_names, len(self.class_names))
        freeze(self.model, recipe.freeze, grn=recipe.freeze_grn)
        self._preprocessing = goal.preprocessing(recipe)
        if min(self._preprocessing.image_size) < encoder.total_stride:
            raise RecipeError(
                f"image_size = {recipe.image_size}: the network needs at least "
                f"{encoder.total_stride} px a side. Use a larger one, or a smaller stem_stride."
            )
        self.recipe = recipe  # `_trial` reads it
        self.recipe = settle_batch(
            recipe, self.model, self._trial, self._place, self.depths, images=len(source)
        )
        self._normalise = build_batch_transform(self.recipe, num_classes=0).normalise
        self._quarantine = Quarantine(start.run.path) if recipe.bad_images == "quarantine" else None
        self.loader = build_training_loader(
            self.recipe,
            source,
            self._place,
            self._quarantine,
            transform=goal.train_transform(self.recipe, source),
            collate=goal.collate,
        )
        self.description = Description(
            kind=goal.kind,
            model=recipe.model,
            arguments=self.model.arguments,
            head=self.model.head_arguments,
            class_names=list(self.class_names),
            preprocessing=self._preprocessing.to_json(),
            provenance=provenance,
        )
        self.best_description = self.description
        self.score = goal.score if is_watched else None

    def _trial(self, model: nn.Module, images: int) -> Tensor:
        """Run blank images, so that `settle_batch` can measure the memory that a step takes."""
        shape = images, self.recipe.in_channels, *self._preprocessing.image_size
        blank = torch.zeros(shape, device=next(model.parameters()).device)
        return self._goal.trial(model, blank, self.recipe)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the loss of a batch.

        The network draws random samples from PyTorch's global generator, which the loop seeds for
        each step.
        """
        images = self._normalise(to_device(batch.pixels, self._place.device))
        return self._goal.loss(model, self.model, images, batch.targets, self.recipe)

    def shown(self, batch: Batch, generator: torch.Generator) -> list[Shown]:
        """Return the images of a batch with their annotations."""
        return self._goal.shown(batch, self.class_names)

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model on the validation images.

        Returns:
            The figures of the goal, by name.
        """
        assert self.validation is not None
        recipe, place, how = self.recipe, self._place, self._preprocessing
        loader = build_evaluation_loader(
            recipe,
            self.validation,
            place,
            self._quarantine,
            self.loader.storage_wait,
            transform=self._goal.eval_transform(how),
            collate=self._goal.collate,
            batch_size=1,
        )
        figures = self._goal.evaluate(self.model, loader, self.validation, how, recipe, place)
        say_left_out(loader.skipped_anywhere(place), "validation image")
        return figures
