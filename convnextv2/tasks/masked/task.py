"""FCMAE pre-training: reconstruct the masked tiles of images. Labels are not read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_batch_transform, build_preprocessing
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import build_training_loader
from convnextv2.data.sources import find_sources
from convnextv2.device import to_device
from convnextv2.distillation.record import with_teacher
from convnextv2.distillation.teacher import open_teacher
from convnextv2.distillation.tiles import build_tile_lessons
from convnextv2.evaluation.gallery import as_rgb, grey_out
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.masked.masking import masked_tiles, masking_line
from convnextv2.tasks.preview import Shown, beside
from convnextv2.text import counted
from convnextv2.training.announce import say_notes
from convnextv2.training.batch_size import settle_batch
from convnextv2.training.build import build_network
from convnextv2.training.shard import skeleton
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class MaskedPretraining:
    """Learn an encoder and its decoder on images without labels. See `training.task.Task`."""

    score = None
    depths = ()

    def __init__(self, start: Start) -> None:
        """Find the images and build the network.

        Args:
            start: How the run starts, and where.
        """
        recipe, place = start.recipe, start.place
        self._place = place
        source, self.validation = find_sources(recipe, labelled=False)
        say_notes(source)
        say(f"{counted(len(source), 'image(s)')} for pre-training.")
        torch.manual_seed(recipe.seed)
        with skeleton(recipe.shard, place):
            encoder = build_network(recipe, None)
        provenance = start.load_into(encoder)
        with skeleton(recipe.shard, place):
            self.model = build_masked(recipe, encoder)
        preprocessing = build_preprocessing(recipe)
        self._size = preprocessing.image_size
        self._grid = self.model.grid(*self._size)
        say(masking_line(self._grid, self.model.tile, recipe.mask_ratio))
        teacher = self._lessons = None
        if recipe.teacher:
            teacher = open_teacher(recipe.teacher, place.device, preprocessing)
            self._lessons = build_tile_lessons(recipe, teacher, self.model, preprocessing)
        provenance = with_teacher(provenance, teacher, start)
        self.recipe = recipe  # `_trial` reads it
        self.recipe = recipe = settle_batch(
            recipe, self.model, self._trial, place, images=len(source)
        )
        # A constant predicts a target of mean 0 and variance 1 with a loss of 1.
        self.baseline_loss = 1.0 if recipe.norm_target else None
        if self._lessons is not None and self.baseline_loss:
            self.baseline_loss = self._lessons.task_weight + self._lessons.weight
        self._normalise = build_batch_transform(recipe, num_classes=0).normalise
        self.description = Description(
            kind="fcmae",
            model=recipe.model,
            arguments=encoder.arguments,
            fcmae=self.model.arguments,
            preprocessing=preprocessing.to_json(),
            provenance=provenance,
        )
        self.best_description = self.description
        quarantine = Quarantine(start.run.path) if recipe.bad_images == "quarantine" else None
        self.loader = build_training_loader(recipe, source, place, quarantine)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the mean squared error on the masked tiles, with masks from the generator."""
        images = self._normalise(to_device(batch.pixels, self._place.device))
        return self._reconstruction_loss(model, images, generator)

    def shown(self, batch: Batch, generator: torch.Generator) -> list[Shown]:
        """Return the images of a batch, each beside what its masks leave visible."""
        masks = draw_masks(len(batch.pixels), self._grid, self.recipe.mask_ratio, generator)
        hidden = grey_out(batch.pixels, masks[0], self._grid, self.model.tile)
        title = f"{masked_tiles(self._grid, self.recipe.mask_ratio)} masked"
        return [
            Shown(beside(as_rgb(each), as_rgb(left)), title)
            for each, left in zip(batch.pixels, hidden, strict=True)
        ]

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Raise an error, because no figure says how good a pre-trained encoder is."""
        raise AssertionError("a task without a score is never evaluated")

    def _trial(self, model: nn.Module, images: int) -> Tensor:
        device = next(model.parameters()).device
        blank = torch.zeros(images, self.recipe.in_channels, *self._size, device=device)
        return self._reconstruction_loss(model, blank, torch.Generator())

    def _reconstruction_loss(
        self, model: nn.Module, images: Tensor, generator: torch.Generator
    ) -> Tensor:
        masks = draw_masks(len(images), self._grid, self.recipe.mask_ratio, generator)
        visible, masked = (to_device(indices, images.device) for indices in masks)
        if self._lessons is not None:
            return self._lessons.loss(model, images, visible, masked)
        loss: Tensor = model(images, visible, masked)
        return loss


def build_masked(recipe: Recipe, encoder: ConvNeXtV2) -> FCMAE:
    """Build the recipe's masked autoencoder around an encoder."""
    return FCMAE(
        encoder,
        tile=recipe.tile,
        norm_target=recipe.norm_target,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
    )
