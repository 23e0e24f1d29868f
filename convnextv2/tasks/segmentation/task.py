"""Training of a segmentor on images with label maps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.dense.map_sources import find_map_sources, map_summary
from convnextv2.data.dense.map_transforms import (
    MapEvalTransform,
    build_map_train_transform,
    collate_maps,
)
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import build_evaluation_loader, build_training_loader
from convnextv2.data.notices import say_left_out
from convnextv2.data.transforms import build_batch_transform, build_preprocessing
from convnextv2.device import choose_precision
from convnextv2.errors import RecipeError
from convnextv2.evaluation.overlay import overlay
from convnextv2.inference.segmenter import Windows, segmenter_of
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.preview import Shown, beside, coloured, from_picture
from convnextv2.tasks.segmentation.measure import measure_maps
from convnextv2.training.announce import say_notes, scratch_line
from convnextv2.training.batch import settle_batch
from convnextv2.training.build import build_network
from convnextv2.training.optim import freeze, freeze_grn
from convnextv2.training.shard import skeleton
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class Segmentation:
    """Learn a class for every pixel. See `training.task.Task`."""

    usual_loss = None  # not known: it depends on the number of classes and of ignored pixels

    def __init__(self, start: Start) -> None:
        """Find the images, look at every label map, and build the network.

        Args:
            start: How the run starts, and where.

        Raises:
            DataError: Images or label maps have defects; the message lists all of them.
            RecipeError: The images are smaller than the network can take.
        """
        recipe, self._place = start.recipe, start.place
        source, self._validation = find_map_sources(recipe, self._place)
        say_notes(source, self._validation)
        say(map_summary(source, self._validation))
        if line := scratch_line(start.way, len(source), classifies=False):
            say(line)
        self.class_names = source.class_names
        torch.manual_seed(recipe.seed)
        with skeleton(recipe, self._place):
            encoder = build_network(recipe, None)
            self.model = build_segmentor(recipe, encoder, len(self.class_names))
        self.depths = encoder.depths
        provenance = start.load_into(self.model, self.class_names, len(self.class_names))
        freeze(self.model, recipe.freeze)
        if recipe.freeze_grn:
            freeze_grn(self.model)
        # Whole images are resized; nothing is cropped.
        self._preprocessing = replace(build_preprocessing(recipe), crop_pct=1.0)
        self.recipe = recipe  # `_check_size` and `_trial` read it
        self._check_size(encoder.total_stride)
        self.recipe = recipe = settle_batch(
            recipe, self.model, self._trial, self._place, self.depths, images=len(source)
        )
        self._normalise = build_batch_transform(recipe, num_classes=0).normalise
        self._quarantine = Quarantine(start.run.path) if recipe.bad_images == "quarantine" else None
        self.loader = build_training_loader(
            recipe,
            source,
            self._place,
            self._quarantine,
            transform=build_map_train_transform(recipe),
            collate=collate_maps,
        )
        self.description = Description(
            kind="segmentation",
            model=recipe.model,
            arguments=self.model.arguments,
            head=self.model.head_arguments,
            class_names=list(self.class_names),
            preprocessing=self._preprocessing.to_json(),
            provenance=provenance,
        )
        self.best_description = self.description
        is_watched = self._validation is not None and recipe.val_while_train
        self.score = "miou" if is_watched else None

    @property
    def is_validated(self) -> bool:
        """Whether there are validation images."""
        return self._validation is not None

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the cross entropy over all pixels, and that of the auxiliary head."""
        device = self._place.device
        images = self._normalise(batch.pixels.to(device))
        logits, auxiliary = model(images)
        return segmentation_loss(
            logits, auxiliary, batch.targets.to(device), self.recipe.auxiliary_weight
        )

    def shown(self, batch: Batch, generator: torch.Generator) -> list[Shown]:
        """Return the images of a batch, each beside the same with its classes in colour."""
        found = []
        for pixels, classes in zip(batch.pixels, batch.targets, strict=True):
            painted = from_picture(overlay(pixels, classes, len(self.class_names)))
            counts = classes[classes >= 0].long().bincount(minlength=len(self.class_names))
            most = [k for k in counts.argsort(descending=True)[:3].tolist() if counts[k]]
            title = ", ".join(self.class_names[k] for k in most) or "ignored"
            found.append(Shown(beside(coloured(pixels), painted), title))
        return found

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model on the validation images.

        Returns:
            See `SegmentationEvaluation.figures`.
        """
        assert self._validation is not None
        recipe, place = self.recipe, self._place
        loader = build_evaluation_loader(
            recipe,
            self._validation,
            place,
            self._quarantine,
            self.loader.patience,
            transform=MapEvalTransform(self._preprocessing),
            collate=collate_maps,
            batch_size=1,
        )
        segmenter = segmenter_of(
            self.model,
            self._preprocessing,
            class_names=self.class_names,
            device=place.device,
            dtype=choose_precision(recipe.precision, place.device),
            windows=Windows.of(recipe),
        )
        evaluation, _ = measure_maps(segmenter, loader, self._validation, place)
        say_left_out(loader.skipped_anywhere(place), "validation image")
        return evaluation.figures()

    def _check_size(self, stride: int) -> None:
        if min(self._preprocessing.image_size) < stride:
            raise RecipeError(
                f"image_size = {self.recipe.image_size}: the network needs at least {stride} px a "
                "side. Use a larger one, or a smaller stem_stride."
            )

    def _trial(self, model: nn.Module, images: int) -> Tensor:
        """Run blank images, so that `settle_batch` finds out what a step takes."""
        device, size = next(model.parameters()).device, self._preprocessing.image_size
        blank = torch.zeros(images, self.recipe.in_channels, *size, device=device)
        targets = torch.zeros(images, *size, dtype=torch.int16, device=device)
        found = model(blank)
        logits, auxiliary = found if isinstance(found, tuple) else (found, None)
        return segmentation_loss(logits, auxiliary, targets, self.recipe.auxiliary_weight)


def build_segmentor(recipe: Recipe, encoder: ConvNeXtV2, num_classes: int) -> Segmentor:
    """Build the recipe's segmentor on an encoder, with random weights in its heads."""
    return Segmentor(
        encoder,
        num_classes,
        channels=recipe.head_channels,
        norm=recipe.head_norm,
        auxiliary=recipe.auxiliary_weight > 0,
    )
