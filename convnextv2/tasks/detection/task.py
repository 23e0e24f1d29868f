"""Training of a detector on images with boxes, and with masks where the data have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.data.batch import Batch
from convnextv2.data.dense.object_sources import find_object_sources, object_summary
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.objects_geometry import (
    ObjectEvalTransform,
    build_object_train_transform,
    collate_objects,
)
from convnextv2.data.dense.rle import check_codec
from convnextv2.data.dense.scan import object_counts
from convnextv2.data.left_out import Quarantine
from convnextv2.data.loader import build_evaluation_loader, build_training_loader
from convnextv2.data.notices import say_left_out
from convnextv2.data.transforms import build_batch_transform, build_preprocessing
from convnextv2.device import choose_precision
from convnextv2.errors import DataError, RecipeError
from convnextv2.inference.detector import ObjectFinder, padded
from convnextv2.model.detector import Detector
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.detection.measure import measure_objects
from convnextv2.tasks.detection.preview import draw_target, name_objects
from convnextv2.tasks.preview import Shown, from_picture
from convnextv2.training.announce import say_notes, scratch_line
from convnextv2.training.batch import settle_batch
from convnextv2.training.build import build_network
from convnextv2.training.optim import freeze, freeze_grn
from convnextv2.training.start import Start
from convnextv2.weights.description import Description


class Detection:
    """Learn boxes, classes and masks of objects. See `training.task.Task`."""

    usual_loss = None  # not known: it depends on the objects

    def __init__(self, start: Start) -> None:
        """Find the images, scan their annotations, and build the network.

        Args:
            start: How the run starts, and where.

        Raises:
            MissingPackageError: faster-coco-eval is not installed.
            DataError: The annotations cannot be used.
            RecipeError: Masks are asked for, and the data have none.
        """
        recipe, self._place = start.recipe, start.place
        check_codec()  # now, and not at the first evaluation
        source, self._validation = find_object_sources(recipe)
        say_notes(source, self._validation)
        say(object_summary(source, self._validation))
        self._check_validation(recipe)
        if line := scratch_line(start.way, len(source), classifies=False):
            say(line)
        masks = wants_masks(recipe, objects_of(source).has_masks)
        self.class_names = source.class_names
        torch.manual_seed(recipe.seed)
        encoder = build_network(recipe, None)
        self.model = build_detector(recipe, encoder, len(self.class_names), masks=masks)
        self.depths = encoder.depths
        provenance = start.load_into(self.model, self.class_names, len(self.class_names))
        freeze(self.model, recipe.freeze)
        if recipe.freeze_grn:
            freeze_grn(self.model)
        self._preprocessing = build_preprocessing(recipe)
        self._check_size(encoder.total_stride)
        self.recipe = recipe  # `_trial` reads it
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
            transform=build_object_train_transform(recipe, masks=masks),
            collate=collate_objects,
        )
        self.description = Description(
            kind="detection",
            model=recipe.model,
            arguments=self.model.arguments,
            head=self.model.head_arguments,
            class_names=list(self.class_names),
            preprocessing=self._preprocessing.to_json(),
            provenance=provenance,
        )
        self.best_description = self.description
        is_watched = self._validation is not None and recipe.val_while_train
        self.score = "ap" if is_watched else None

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Compute the sum of the losses of proposals, classes, boxes and masks.

        What is sampled among proposals is drawn from PyTorch's own generator, which the loop seeds
        for each step.
        """
        images = self._normalise(batch.pixels.to(self._place.device))
        return detection_loss(model, self.model, images, batch.targets, self._place.device)

    def shown(self, batch: Batch, generator: torch.Generator) -> list[Shown]:
        """Return the images of a batch with their boxes, and with masks where they are learned."""
        return [
            Shown(
                from_picture(draw_target(pixels, target, self.class_names)),
                name_objects(target, self.class_names),
            )
            for pixels, target in zip(batch.pixels, batch.targets, strict=True)
        ]

    def size(self, batch: Batch) -> int:
        """Count the images in a batch."""
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the model on the validation images.

        Returns:
            See `DetectionEvaluation.figures`.
        """
        assert self._validation is not None
        recipe, place = self.recipe, self._place
        transform = ObjectEvalTransform(self._preprocessing)
        loader = build_evaluation_loader(
            recipe,
            self._validation,
            place,
            self._quarantine,
            self.loader.patience,
            transform=transform,
            collate=collate_objects,
            batch_size=1,
        )
        finder = ObjectFinder(
            self.model,
            transform,
            list(self.class_names),
            place.device,
            choose_precision(recipe.precision, place.device),
        )
        measured = measure_objects(finder, loader, self._validation, place)
        say_left_out(loader.skipped_anywhere(place), "validation image")
        return measured.evaluation.figures()

    @property
    def is_validated(self) -> bool:
        """Whether there are validation images."""
        return self._validation is not None

    def _check_validation(self, recipe: Recipe) -> None:
        if self._validation is None or not recipe.val_while_train:
            return
        if not sum(object_counts(self._validation)):
            raise DataError(
                f"none of the {len(self._validation)} validation images has an object, so there is "
                "nothing to measure. Choose others with val_split, or set val_while_train = False."
            )

    def _check_size(self, stride: int) -> None:
        if min(self._preprocessing.image_size) < stride:
            raise RecipeError(
                f"image_size = {self.recipe.image_size}: the network needs at least {stride} px a "
                "side. Use a larger one, or a smaller stem_stride."
            )

    def _trial(self, model: nn.Module, images: int) -> Tensor:
        """Run blank images, so that `settle_batch` finds out what a step takes."""
        assert isinstance(model, Detector)
        device, size = next(model.parameters()).device, self._preprocessing.image_size
        blank = torch.zeros(images, self.recipe.in_channels, *size, device=device)
        return model.trial(padded(blank, model.encoder.total_stride))


def detection_loss(
    model: nn.Module,
    detector: Detector,
    images: Tensor,
    targets: Sequence[dict[str, Tensor]],
    device: torch.device,
) -> Tensor:
    """Compute the sum of all losses of a detector.

    Args:
        model: The detector, wrapped if gradients are averaged over ranks.
        detector: The detector itself.
        images: (N, C, H, W), normalised, on the device.
        targets: What `ObjectTrainTransform` made of the objects of each image.
        device: The device.
    """
    sizes, objects = on_device(targets, device)
    losses: dict[str, Tensor] = model(padded(images, detector.encoder.total_stride), sizes, objects)
    return torch.stack(list(losses.values())).sum()


def wants_masks(recipe: Recipe, has_masks: bool) -> bool:
    """Decide whether masks are learned.

    Raises:
        RecipeError: They are asked for, and the data have none.
    """
    if recipe.masks == "on" and not has_masks:
        raise RecipeError(
            "masks = on: the objects have no masks. Give data with outlines or run-length codes, "
            "or leave masks out."
        )
    return has_masks and recipe.masks != "off"


def build_detector(recipe: Recipe, encoder: Any, num_classes: int, *, masks: bool) -> Detector:
    """Build the recipe's detector on an encoder, with random weights in its head."""
    return Detector(
        encoder,
        num_classes,
        masks=masks,
        fpn_channels=recipe.fpn_channels,
        finest_stride=recipe.finest_stride,
        anchor_scale=recipe.anchor_scale,
        box_dim=recipe.box_dim,
        proposals=recipe.proposals,
        rois=recipe.rois,
        max_detections=recipe.max_detections,
        soft=recipe.soft_nms,
    )


def on_device(
    targets: Sequence[dict[str, Tensor]], device: torch.device
) -> tuple[list[tuple[int, int]], list[dict[str, Tensor]]]:
    """Split the targets of a batch into the sizes of the images and their objects on a device."""
    sizes = [(int(each["size"][0]), int(each["size"][1])) for each in targets]
    moved = [
        {
            # Where masks lie is read by the host.
            name: value if name == "mask_places" else value.to(device)
            for name, value in each.items()
            if name != "size"
        }
        for each in targets
    ]
    return sizes, moved
