"""The goal of detection: boxes and classes of objects, and masks if the data have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.dense.object_sources import find_object_sources, object_summary
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.objects_geometry import (
    ObjectEvalTransform,
    ObjectTrainTransform,
    build_object_train_transform,
    collate_objects,
)
from convnextv2.data.dense.rle import check_codec
from convnextv2.data.dense.scan import object_counts
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.loader import EvaluationLoader
from convnextv2.device import choose_precision, to_device
from convnextv2.distributed import Place
from convnextv2.errors import DataError, RecipeError
from convnextv2.inference.detector import ObjectFinder, padded
from convnextv2.model.detector import Detector
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.detection.measure import measure_objects
from convnextv2.tasks.detection.preview import draw_target, name_objects
from convnextv2.tasks.preview import Shown, from_picture
from convnextv2.training.build import build_network


class BoxesAndMasks:
    """Learn boxes, classes and masks of objects. See `dense.goal.DenseGoal`."""

    kind = "detection"
    score = "ap"

    def find(self, recipe: Recipe, place: Place) -> tuple[AnnotatedSource, AnnotatedSource | None]:
        """Find the images, and scan their annotations."""
        check_codec()  # a missing package is reported now, not at the first evaluation
        return find_object_sources(recipe)

    def summary(self, training: AnnotatedSource, validation: AnnotatedSource | None) -> str:
        """Say how many images, objects and classes there are."""
        return object_summary(training, validation)

    def check_validation(self, validation: AnnotatedSource) -> None:
        """Check that the validation images have objects.

        Raises:
            DataError: They have none.
        """
        if not sum(object_counts(validation)):
            raise DataError(
                f"none of the {len(validation)} validation images has an object, so there is "
                "nothing to measure. Choose others with val_split, or set val_while_train = False."
            )

    def build_model(self, recipe: Recipe, place: Place, source: AnnotatedSource) -> Detector:
        """Build a detector of the classes of the images, with a mask head if masks are learned.

        Raises:
            RecipeError: Masks are asked for, but the data have none.
        """
        masks = wants_masks(recipe.masks, objects_of(source).has_masks)
        encoder = build_network(recipe, None)
        return build_detector(recipe, encoder, len(source.class_names), masks=masks)

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """Return how images are prepared."""
        return build_preprocessing(recipe)

    def trial(self, model: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
        """Run every layer on blank images; see `Detector.trial`."""
        assert isinstance(model, Detector)
        return model.trial(padded(images, model.encoder.total_stride))

    collate = staticmethod(collate_objects)

    def train_transform(self, recipe: Recipe, source: AnnotatedSource) -> ObjectTrainTransform:
        """Build the augmentation of training images, with their masks if these are learned."""
        masks = wants_masks(recipe.masks, objects_of(source).has_masks)
        return build_object_train_transform(recipe, masks=masks)

    def eval_transform(self, preprocessing: Preprocessing) -> ObjectEvalTransform:
        """Build the preprocessing of evaluation images."""
        return ObjectEvalTransform(preprocessing)

    def loss(
        self,
        model: nn.Module,
        network: nn.Module,
        images: Tensor,
        targets: Sequence[dict[str, Tensor]],
        recipe: Recipe,
    ) -> Tensor:
        """Compute the sum of the losses of proposals, classes, boxes and masks."""
        assert isinstance(network, Detector)
        return detection_loss(model, network, images, targets)

    def shown(self, batch: Batch, class_names: Sequence[str]) -> list[Shown]:
        """Return the images of a batch with their boxes, and with masks where they are learned."""
        return [
            Shown(
                from_picture(draw_target(pixels, target, class_names)),
                name_objects(target, class_names),
            )
            for pixels, target in zip(batch.pixels, batch.targets, strict=True)
        ]

    def evaluate(
        self,
        network: nn.Module,
        loader: EvaluationLoader,
        source: AnnotatedSource,
        preprocessing: Preprocessing,
        recipe: Recipe,
        place: Place,
    ) -> dict[str, float]:
        """Evaluate the network; see `DetectionEvaluation.figures`."""
        assert isinstance(network, Detector)
        finder = ObjectFinder(
            network,
            ObjectEvalTransform(preprocessing),
            list(source.class_names),
            place.device,
            choose_precision(recipe.precision, place.device),
        )
        return measure_objects(finder, loader, source, place).evaluation.figures()


def detection_loss(
    model: nn.Module,
    detector: Detector,
    images: Tensor,
    targets: Sequence[dict[str, Tensor]],
) -> Tensor:
    """Compute the sum of all losses of a detector.

    Args:
        model: The detector, wrapped if gradients are averaged over ranks.
        detector: The detector itself.
        images: (N, C, H, W), normalised, on the device.
        targets: What `ObjectTrainTransform` made of the objects of each image.
    """
    sizes, objects = on_device(targets, images.device)
    losses: dict[str, Tensor] = model(padded(images, detector.encoder.total_stride), sizes, objects)
    return torch.stack(list(losses.values())).sum()


def wants_masks(asked: str, has_masks: bool) -> bool:
    """Decide whether masks are learned.

    Args:
        asked: The knob `masks`.
        has_masks: Whether the objects of the data have some.

    Raises:
        RecipeError: They are asked for, but the data have none.
    """
    if asked == "on" and not has_masks:
        raise RecipeError(
            "masks = on: the objects have no masks. Give data with outlines or run-length codes, "
            "or leave masks out."
        )
    return has_masks and asked != "off"


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
            # The host reads the positions of masks, so they stay on the CPU.
            name: value if name == "mask_places" else to_device(value, device)
            for name, value in each.items()
            if name != "size"
        }
        for each in targets
    ]
    return sizes, moved
