"""Choose the task of a run, by its recipe and by the labels of its images."""

from __future__ import annotations

import torch
from torch import nn

from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.dense.object_sources import find_object_sources
from convnextv2.data.dense.objects import objects_of
from convnextv2.data.dense.source import AnnotatedSource
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.classification.goal import SingleLabel
from convnextv2.tasks.dense.task import Dense
from convnextv2.tasks.detection.goal import BoxesAndMasks, build_detector, wants_masks
from convnextv2.tasks.masked.task import build_masked
from convnextv2.tasks.multi_label.goal import MultiLabel, several_labels
from convnextv2.tasks.segmentation.goal import PixelClasses, build_segmentor
from convnextv2.tasks.supervised.task import Supervised
from convnextv2.training.build import build_network
from convnextv2.training.optim import freeze
from convnextv2.training.start import Start

AnyTask = Supervised | Dense


def build_task(start: Start) -> AnyTask:
    """Build the task that the recipe names, or that its training images ask for.

    Args:
        start: How the run starts, and where. If images may have several labels, its recipe is
            settled for that.
    """
    if start.recipe.task == "segmentation":
        return Dense(start, PixelClasses())
    if start.recipe.task == "detection":
        return Dense(start, BoxesAndMasks())
    sources = find_sources(start.recipe, labelled=True)
    if not sources[0].is_multi_label:
        return Supervised(start, sources, SingleLabel())
    start.recipe = several_labels(start.recipe)
    return Supervised(start, sources, MultiLabel())


def find_training(recipe: Recipe, place: Place, *, labelled: bool) -> Source:
    """Find the training images of a recipe.

    Args:
        recipe: Names the task and the data.
        place: This rank.
        labelled: False for pre-training, for which all images count.
    """
    if labelled and recipe.task == "segmentation":
        return find_map_sources(recipe, place)[0]
    if labelled and recipe.task == "detection":
        return find_object_sources(recipe)[0]
    return find_sources(recipe, labelled=labelled)[0]


def outline(recipe: Recipe, source: Source, *, labelled: bool) -> nn.Module:
    """Build the network that a recipe trains, without allocating memory for its weights.

    Args:
        recipe: The recipe.
        source: Its training images, which know the classes.
        labelled: False for pre-training.

    Returns:
        The network on the meta device. What the recipe freezes needs no gradient.
    """
    classes = len(source.class_names)
    model: nn.Module
    with torch.device("meta"):
        if not labelled:
            return build_masked(recipe, build_network(recipe, None))
        if recipe.task == "segmentation":
            model = build_segmentor(recipe, build_network(recipe, None), classes)
        elif recipe.task == "detection":
            assert isinstance(source, AnnotatedSource), "find_training returns one"
            masks = wants_masks(recipe.masks, objects_of(source).has_masks)
            model = build_detector(recipe, build_network(recipe, None), classes, masks=masks)
        else:
            model = build_network(recipe, recipe.num_classes or classes)
    freeze(model, recipe.freeze, grn=recipe.freeze_grn)
    return model
