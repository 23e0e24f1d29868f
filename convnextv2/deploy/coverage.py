"""Fit the "unknown" answer of an artifact to the outputs of the artifact itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from convnextv2.deploy.certificate import input_of
from convnextv2.deploy.export import Form, PixelEvidence
from convnextv2.deploy.formats.artifact_format import Runner
from convnextv2.deploy.quantise import calibration_images
from convnextv2.errors import DataError
from convnextv2.evaluation.foreign import enlarged_parts
from convnextv2.evaluation.unknown import (
    Unknown,
    check_enough,
    features_of,
    fingerprints,
    fit_unknown,
)


def build_coverage_fit(
    coverage: float,
    form: Form,
    evidence: PixelEvidence,
    temperature: float,
    normalise: Callable[[Tensor], Tensor],
) -> Callable[[Runner], Unknown]:
    """Build a function that fits a coverage on the images that an artifact is measured on.

    Images that calibrate an int8 artifact are left out, because it was fitted to them.

    Args:
        coverage: The share of images whose right class is to be among the possible classes.
        form: The form of the artifact.
        evidence: The images and their classes.
        temperature: The number by which logits are divided before softmax.
        normalise: Turns pixels into images.

    Returns:
        A function from the finished artifact to its "unknown" answer, without the hash.

    Raises:
        DataError: There are too few images whose class is known.
    """
    if evidence.targets is None:
        raise DataError(
            f"coverage = {coverage:g}: needs labelled validation images. Give them with data_dir."
        )
    known = evidence.targets >= 0
    if form.precision == "int8":
        known &= ~calibration_images(len(evidence.pixels))
    check_enough(int(known.sum()), coverage, evidence.origin)
    pixels, targets = evidence.pixels[known], evidence.targets[known].numpy()

    def fit(run: Runner) -> Unknown:
        hashes, outputs = fingerprints(pixels), []
        shown = (pixels, enlarged_parts(pixels, hashes))
        for images in shown:
            batches = images.split(evidence.batch_size)
            found = [run(input_of(form.input, batch, normalise).numpy()) for batch in batches]
            outputs.append([np.concatenate([each[i] for each in found]) for i in range(2)])
        probs = outputs[0][0]
        if form.input == "images":
            probs = (torch.from_numpy(probs) / temperature).softmax(-1).numpy()
        whole, part = (
            features_of(embedding, images)
            for images, (_, embedding) in zip(shown, outputs, strict=True)
        )
        return fit_unknown(
            probs[np.arange(len(targets)), targets],
            whole,
            part,
            targets,
            hashes,
            coverage=coverage,
            sha256="",
            images_from=evidence.origin,
        )

    return fit
