"""Measure how well frozen features tell classes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convnextv2.console import print_json, say
from convnextv2.data.loader import build_prediction_loader
from convnextv2.data.notices import none_readable, say_left_out
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.probes import Probed, probe_features
from convnextv2.inference.embedder import NORMED, Embedder, open_embedder
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.tasks.supervised.own_data import check_held_out
from convnextv2.text import counted
from convnextv2.verbs.options.measuring import ProbeOptions
from convnextv2.verbs.own_images import with_own_images


@takes(ProbeOptions)
def probe(options: ProbeOptions) -> Probed:
    """Measure frozen features: by nearest neighbours, and by a linear probe.

    The encoder is not trained, so this takes seconds where fine-tuning takes hours. It works for
    pre-training runs, classifiers, and weights of any known format.

    Returns:
        The accuracies.

    Raises:
        RecipeError: No images are named.
        DataError: There are no labelled images, or no separate validation images.
    """
    given, notes = options.recipe()
    choice.choose(given.kernels)
    embedder = open_embedder(options.run, device=given.device, precision=given.precision)
    weights = Path(embedder.about["path"])
    has_learned = embedder.about["features"] == NORMED  # pre-training has no final norm
    if embedder.about.get("kind") in ("segmentation", "detection") and not (
        given.data_dir or given.dataset
    ):
        raise RecipeError(
            f"data_dir is missing: {weights} was trained on images that have no class each. Give "
            "--data_dir DATA, with one folder for each class."
        )
    recipe = with_own_images(given, weights, has_learned=has_learned)
    training, validation = find_sources(recipe, labelled=True)
    if validation is None:
        raise DataError(
            f"{recipe.data_dir}: has no validation images to measure features on. "
            + (
                "Set val_fraction, or add a folder val."
                if recipe.val_while_train
                else "The run was trained on all of them. Give other images with data_dir."
            )
        )
    if has_learned:
        check_held_out(
            validation, lambda other: find_sources(other, labelled=True)[1], recipe, weights
        )
    if shared := set(training.names) & set(validation.names):
        raise DataError(
            f"val_split = {recipe.val_split}: {len(shared)} of {len(validation)} validation images "
            f"are training images too, for example {min(shared)}. A probe has seen their classes, "
            "so its accuracy would mean nothing. Choose another split."
        )
    if training.is_multi_label:
        raise DataError(
            f"{recipe.data_dir}: images have several labels each, but probes need one class per "
            "image. Set labels to single, or name another table."
        )
    for line in (*notes, *embedder.notes, *training.notes, *validation.notes):
        say(line)
    features, labels = _embed(embedder, training, recipe, "training image")
    queries, truth = _embed(embedder, validation, recipe, "validation image")
    classes = len(training.class_names)
    found = probe_features(features, labels, queries, truth, classes=classes, k=options.k)
    say(
        f"{counted(len(labels), 'training image(s)')}, "
        f"{counted(len(truth), 'validation image(s)')}, {counted(classes, 'class(es)')}"
    )
    say(f"nearest neighbours  {found.knn:7.2%}  (k {min(options.k, len(labels))})")
    say(f"linear probe        {found.linear:7.2%}  (l2 {found.l2:g})")
    say(f"most frequent class {found.commonest:7.2%}")
    print_json({"weights": str(embedder.about["path"]), **found._asdict()})
    return found


def _embed(embedder: Embedder, source: Source, recipe: Recipe, what: str) -> tuple[Tensor, Tensor]:
    """Compute the features of labelled images.

    Returns:
        float32 (N, D) and int64 (N,), of the images that can be read.
    """
    loader = build_prediction_loader(recipe, source, embedder.transform)
    features, labels = [], []
    for batch in loader:
        features.append(embedder.run(batch.pixels))
        labels.append(batch.targets.clone())
    say_left_out(loader.skipped, what)
    if not features:
        raise none_readable(source.names, what)
    return torch.from_numpy(np.concatenate(features)), torch.cat(labels)
