"""The goal of segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from convnextv2.data.batch import Batch
from convnextv2.data.build_transforms import build_preprocessing
from convnextv2.data.dense.map_sources import find_map_sources, map_summary
from convnextv2.data.dense.map_transforms import (
    MapEvalTransform,
    MapTrainTransform,
    build_map_train_transform,
    collate_maps,
)
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.loader import EvaluationLoader
from convnextv2.device import choose_precision, to_device
from convnextv2.distributed import Place
from convnextv2.evaluation.gallery import as_rgb
from convnextv2.evaluation.overlay import overlay
from convnextv2.inference.pixel_classifier import Windows, build_pixel_classifier
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.preview import Shown, beside, from_picture
from convnextv2.tasks.segmentation.measure import measure_maps
from convnextv2.training.build import build_network
from convnextv2.training.shard import skeleton


class PixelClasses:
    """Learn a class for every pixel from label maps. See `dense.goal.DenseGoal`."""

    kind = "segmentation"
    score = "miou"

    def find(self, recipe: Recipe, place: Place) -> tuple[AnnotatedSource, AnnotatedSource | None]:
        """Find the images, and check every label map."""
        return find_map_sources(recipe, place)

    def summary(self, training: AnnotatedSource, validation: AnnotatedSource | None) -> str:
        """Say how many images and classes there are."""
        return map_summary(training, validation)

    def check_validation(self, validation: AnnotatedSource) -> None:
        """Check nothing, because `find` has already checked every label map."""

    def build_model(self, recipe: Recipe, place: Place, source: AnnotatedSource) -> Segmentor:
        """Build a segmentor of the classes of the images."""
        with skeleton(recipe.shard, place):
            encoder = build_network(recipe, None)
            return build_segmentor(recipe, encoder, len(source.class_names))

    def preprocessing(self, recipe: Recipe) -> Preprocessing:
        """Return how images are prepared: whole images are resized, and nothing is cropped."""
        return replace(build_preprocessing(recipe), crop_pct=1.0)

    def trial(self, model: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
        """Compute the loss of blank images whose pixels all have the first class."""
        size = images.shape[-2:]
        targets = torch.zeros(len(images), *size, dtype=torch.int16, device=images.device)
        found = model(images)
        logits, auxiliary = found if isinstance(found, tuple) else (found, None)
        return segmentation_loss(logits, auxiliary, targets, recipe.auxiliary_weight)

    collate = staticmethod(collate_maps)

    def train_transform(self, recipe: Recipe, source: AnnotatedSource) -> MapTrainTransform:
        """Build the augmentation of training images."""
        return build_map_train_transform(recipe)

    def eval_transform(self, preprocessing: Preprocessing) -> MapEvalTransform:
        """Build the preprocessing of evaluation images."""
        return MapEvalTransform(preprocessing)

    def loss(
        self, model: nn.Module, network: nn.Module, images: Tensor, targets: Tensor, recipe: Recipe
    ) -> Tensor:
        """Compute the cross entropy over all pixels, and that of the auxiliary head."""
        logits, auxiliary = model(images)
        return segmentation_loss(
            logits, auxiliary, to_device(targets, images.device), recipe.auxiliary_weight
        )

    def shown(self, batch: Batch, class_names: Sequence[str]) -> list[Shown]:
        """Return the images of a batch, each beside a copy with its classes in colour."""
        found = []
        for pixels, classes in zip(batch.pixels, batch.targets, strict=True):
            painted = from_picture(overlay(pixels, classes, len(class_names)))
            counts = classes[classes >= 0].long().bincount(minlength=len(class_names))
            most = [k for k in counts.argsort(descending=True)[:3].tolist() if counts[k]]
            title = ", ".join(class_names[k] for k in most) or "ignored"
            found.append(Shown(beside(as_rgb(pixels), painted), title))
        return found

    def evaluate(
        self,
        network: nn.Module,
        loader: EvaluationLoader,
        source: AnnotatedSource,
        preprocessing: Preprocessing,
        recipe: Recipe,
        place: Place,
    ) -> dict[str, float]:
        """Evaluate the network; see `SegmentationEvaluation.figures`."""
        assert isinstance(network, Segmentor)
        pixel_classifier = build_pixel_classifier(
            network,
            preprocessing,
            class_names=source.class_names,
            device=place.device,
            dtype=choose_precision(recipe.precision, place.device),
            windows=Windows.of(recipe),
        )
        evaluation, _ = measure_maps(pixel_classifier, loader, source, place)
        return evaluation.figures()


def build_segmentor(recipe: Recipe, encoder: ConvNeXtV2, num_classes: int) -> Segmentor:
    """Build the recipe's segmentor on an encoder, with random weights in its heads."""
    return Segmentor(
        encoder,
        num_classes,
        channels=recipe.head_channels,
        norm=recipe.head_norm,
        auxiliary=recipe.auxiliary_weight > 0,
    )
