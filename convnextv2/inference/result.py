"""The answer for one image: its most probable classes, or the labels that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convnextv2.inference.scorer import Scorer, Scores


def result_of(
    scorer: Scorer, scores: Scores, top_k: int, *, threshold: float | None = None
) -> dict[str, Any]:
    """Return the answer of a classifier for one image, ready for JSON.

    Args:
        scorer: The model.
        scores: Its scores of the image, N = 1.
        top_k: How many classes to name if an image has one class.
        threshold: The lowest probability of a class or label that is returned; None for the model's
            thresholds of labels, and for all `top_k` classes.

    Returns:
        {"predictions": [{"class", "prob"}, ...]}, the most probable class first. If an image may
        have any number of labels, see `labels_of`. If the model was fitted with a coverage, there
        are three more entries: "possible", the names of the classes that cannot be excluded, the
        most probable first; "foreign", whether the image is unlike the images of the fit; and
        "foreignness", which is above 1 for a foreign image.
    """
    probs = scores.probs[0]
    if scorer.thresholds is not None:
        limits = scorer.thresholds if threshold is None else [threshold] * len(probs)
        return labels_of(probs, scorer.class_names, limits)
    best = top(probs, scorer.class_names, top_k)
    found = {"predictions": [one for one in best if one["prob"] >= (threshold or 0)]}
    if scores.possible is None or scores.foreignness is None:
        return found
    possible = np.flatnonzero(scores.possible[0])
    possible = possible[np.argsort(-probs[possible], kind="stable")]
    foreignness = float(scores.foreignness[0])
    return found | {
        "possible": [scorer.class_names[c] for c in possible],
        "foreign": foreignness > 1,
        "foreignness": foreignness,
    }


def labels_of(
    probs: NDArray[np.float32], class_names: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """Return the labels of one image, and the probabilities of all classes.

    Args:
        probs: The probabilities, float32 (classes,).
        class_names: The names of the classes.
        thresholds: The lowest probability at which each class counts as present.

    Returns:
        {"labels": [{"name", "score", "threshold"}, ...], "scores": {name: probability}}. The labels
        are the classes that count as present, the most probable first; there may be none. The
        scores are the probabilities of all classes, in the model's order.
    """
    scores = dict(zip(class_names, probs.tolist(), strict=True))
    counting = [
        {"name": name, "score": score, "threshold": threshold}
        for (name, score), threshold in zip(scores.items(), thresholds, strict=True)
        if score >= threshold
    ]
    counting.sort(key=lambda label: -label["score"])
    return {"labels": counting, "scores": scores}


def top(probs: NDArray[np.float32], class_names: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """Return the most probable classes of one image.

    Args:
        probs: The probabilities, float32 (classes,).
        class_names: The names of the classes.
        top_k: How many to return.

    Returns:
        {"class": name, "prob": probability} for each, the most probable first.
    """
    best = torch.from_numpy(probs).topk(min(top_k, len(probs)))
    return [
        {"class": class_names[c], "prob": p}
        for c, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
