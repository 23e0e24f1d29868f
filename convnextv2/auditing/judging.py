"""Judges the labels of a data set, by features of an encoder or of the quick descriptor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from convnextv2.auditing.descriptor import describe
from convnextv2.auditing.findings import Finding
from convnextv2.auditing.images import Images
from convnextv2.auditing.labels import (
    MAX_WRONG,
    MIN_IMAGES,
    NAMED,
    Doubt,
    doubt,
    is_better_than_guessing,
    judge,
)
from convnextv2.auditing.scan import Look
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.notices import none_readable
from convnextv2.data.source import Source
from convnextv2.inference.embedder import Embedder


def find_wrong_labels(
    images: Images,
    looks: Sequence[Look],
    embedder: Embedder | None,
    *,
    batch_size: int,
    max_pixels: int,
) -> tuple[list[Finding], str]:
    """Find labels that are probably wrong.

    Args:
        images: The images.
        looks: What the scan found in each of them.
        embedder: Computes features. The quick descriptor is tried as well, and is used if a
            classifier on it agrees with more labels. None to use only the quick descriptor.
        batch_size: Images that are embedded at once.
        max_pixels: The largest image that is decoded.

    Returns:
        The findings, and a sentence on how they were found, or why there are none.
    """
    if images.targets is None or images.task != "classification" or images.is_multi_label:
        return [], "Labels are judged only if every image has one class."
    good = [i for i, look in enumerate(looks) if not look.error and images.targets[i] >= 0]
    counts = np.bincount(images.targets[good], minlength=len(images.class_names))
    judged = np.flatnonzero(counts >= MIN_IMAGES)
    if len(judged) < 2:
        return [], (f"Labels are not judged: fewer than two classes have {MIN_IMAGES} images each.")
    chosen = [i for i in good if counts[images.targets[i]] >= MIN_IMAGES]
    row = np.full(len(counts), -1, np.int64)
    row[judged] = np.arange(len(judged))
    labels = torch.from_numpy(row[images.targets[chosen]])
    small = [look.small for i in chosen if (look := looks[i]).small is not None]
    described = {"a quick descriptor of small copies": describe(np.stack(small))}
    if embedder is not None:
        features = _embed([images.paths[i] for i in chosen], embedder, batch_size, max_pixels)
        described = {f"features of {embedder.about['path']}": features, **described}
    judgements = {
        name: judge(features, labels, len(judged)) for name, features in described.items()
    }
    by = max(judgements, key=lambda name: judgements[name].accuracy)
    found = judgements.pop(by)
    others = "".join(f" (by {name}, {each.accuracy:.0%})" for name, each in judgements.items())
    doubts = doubt(found.logits, labels)
    commonest = float(labels.bincount().max()) / len(labels)
    if not is_better_than_guessing(found.accuracy, commonest, len(labels)):
        return [], (
            f"Labels are not judged: by {by}, a linear classifier predicts {found.accuracy:.0%} of "
            f"the labels of images that it did not see{others}, and the most common class has "
            f"{commonest:.0%} of them. Give a better encoder with init."
        )
    if doubts.share > MAX_WRONG:
        return [], (
            f"Labels are not judged: by {by}, {doubts.share:.0%} of them would be wrong, which is "
            "more likely a fault of the classifier. Give a better encoder with init."
        )
    names = [images.class_names[k] for k in judged.tolist()]
    return _named(images, chosen, doubts, names), (
        f"Judged by {by}, from which a linear classifier predicts {found.accuracy:.0%} of the "
        f"labels of images that it did not see{others}; {doubts.share:.1%} of the labels are "
        "estimated to be wrong."
    )


def _named(
    images: Images, chosen: Sequence[int], doubts: Doubt, names: Sequence[str]
) -> list[Finding]:
    """Turn doubts about the chosen images into findings, if they are strong enough."""
    rows = zip(chosen, doubts.wrong.tolist(), doubts.suggested.tolist(), strict=True)
    return [
        Finding(
            "wrong_label",
            images.paths[i],
            images.splits[i],
            images.label_of(i),
            f"wrong with a probability of {wrong:.0%}",
            suggested=names[other],
            score=round(wrong, 4),
        )
        for i, wrong, other in rows
        if wrong >= NAMED
    ]


def _embed(paths: Sequence[str], embedder: Embedder, batch_size: int, max_pixels: int) -> Tensor:
    """Compute features of images that can be read, float32 (N, D)."""
    source = Source(list(paths), max_pixels=max_pixels)
    loader = EvaluationLoader(
        source,
        embedder.transform,
        batch_size=batch_size,
        channels=embedder.transform.preprocessing.channels,
        workers=0,
        bad_images="fail",
    )
    features = [torch.from_numpy(embedder.run(batch.pixels)) for batch in loader]
    if not features:
        raise none_readable(paths)
    return torch.cat(features)
