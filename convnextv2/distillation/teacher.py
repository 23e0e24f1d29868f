"""The teacher: a frozen model that gets the student's images, prepared as it expects them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.card import Card
from convnextv2.errors import RecipeError
from convnextv2.evaluation.classes import order_of
from convnextv2.inference.opening import open_model
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import Preprocessing
from convnextv2.text import plain
from convnextv2.weights.description import DENSE_KINDS
from convnextv2.weights.opened import OURS, Weights
from convnextv2.weights.restore import restore


class Answer(NamedTuple):
    """The answer of a teacher to N images.

    Attributes:
        logits: (N, rows); None if the teacher has no such head, see `Teacher.rows`.
        features: The pooled features, (N, width).
        map: The output of the last stage, (N, h, w, width); None if the teacher is an artifact that
            does not return it.
    """

    logits: Tensor | None
    features: Tensor
    map: Tensor | None


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen model that is evaluated on the student's images.

    It is not part of the student, so neither the optimizer nor checkpoints contain it.

    Attributes:
        name: What it was opened from.
        answer: Maps normalised images of the teacher's size to an answer.
        preprocessing: How its own images are prepared.
        class_names: The name of each row of its head; empty if they are unknown.
        rows: The number of rows of its head; 0 without a head that gives each image one class.
        width: The number of channels of its features.
        has_map: Whether its answers have a map.
        format: The format whose conventions decide the order of its rows.
        balance: The frequencies of its classes for which its probabilities hold, see
            `Description.balance`; empty if they are unknown.
        record: The entry for the student's provenance.
        lines: Lines to print about it.
    """

    name: str
    answer: Callable[[Tensor], Answer]
    preprocessing: Preprocessing
    class_names: list[str]
    rows: int
    width: int
    has_map: bool
    format: str
    balance: dict[str, Any]
    record: dict[str, Any]
    lines: list[str]

    def __call__(self, images: Tensor, seen_by_student: Preprocessing) -> Answer:
        """Answer for the student's images.

        Args:
            images: float32 (N, C, H, W), normalised, cropped and mixed for the student.
            seen_by_student: How the student's images are normalised.

        Returns:
            The answer. No gradient flows through it.
        """
        with torch.no_grad():
            return self.answer(self.view(images, seen_by_student))

    def view(self, images: Tensor, seen_by_student: Preprocessing) -> Tensor:
        """Convert the student's images to the teacher's normalisation and size.

        Args:
            images: float32 (N, C, H, W), normalised for the student.
            seen_by_student: How the student's images are normalised.

        Returns:
            float32 (N, C, *preprocessing.image_size).
        """
        own, theirs = self.preprocessing, seen_by_student
        if (own.mean, own.std) != (theirs.mean, theirs.std):
            means, stds, own_means, own_stds = (
                torch.tensor(values, device=images.device).view(-1, 1, 1)
                for values in (theirs.mean, theirs.std, own.mean, own.std)
            )
            images = images * (stds / own_stds) + (means - own_means) / own_stds
        if tuple(images.shape[-2:]) == own.image_size:
            return images
        mode = "bilinear" if own.interpolation == "bilinear" else "bicubic"
        return F.interpolate(
            images, own.image_size, mode=mode, align_corners=False, antialias=own.averages
        )


def open_teacher(source: str, device: torch.device, student: Preprocessing) -> Teacher:
    """Open a teacher.

    Args:
        source: A run folder, a weights file of any known format, a repository on the Hub, or an
            artifact.
        device: The device of the student. An artifact computes on the CPU.
        student: How the student's images are prepared.

    Raises:
        ConvNeXtV2Error: The source cannot be opened or returns no features, or its images have
            other channels or another range of values.
    """
    opened = open_model(source)
    if isinstance(opened, Artifact):
        teacher = _from_artifact(opened)
    else:
        teacher = _from_weights(opened, device, student)
    own = teacher.preprocessing
    if own.channels != student.channels:
        raise RecipeError(
            f"teacher = {source}: its images have {own.channels} channels, expected "
            f"{student.channels}, as the student's have. Use another teacher, or set in_channels."
        )
    if own.value_range != student.value_range:
        raise RecipeError(
            f"teacher = {source}: its value_range is {own.value_range}, expected that of the "
            f"student, {student.value_range}. Set value_range to the teacher's."
        )
    if own.image_size != student.image_size:
        teacher.lines.append(
            f"The teacher sees the images at {own.image_size[0]} x {own.image_size[1]} px, the "
            f"student at {student.image_size[0]} x {student.image_size[1]} px."
        )
    return teacher


def _from_weights(opened: Weights, device: torch.device, student: Preprocessing) -> Teacher:
    description = opened.description
    model = restore(opened).requires_grad_(False)
    network = (model.encoder if isinstance(model, FCMAE | Segmentor | Detector) else model).to(
        device
    )
    lines = [f"Teacher: {line}" if i == 0 else line for i, line in enumerate(opened.lines())]
    rows = 0 if description.kind == "multi_label" else network.num_classes or 0
    preprocessing = student
    if description.preprocessing:
        preprocessing = Preprocessing.read(description.preprocessing)
    else:
        lines.append("The teacher's weights state no preprocessing, so the student's is used.")
    return Teacher(
        str(opened.path),
        _Network(network),
        preprocessing,
        class_names=list(description.class_names) if rows else [],
        rows=rows,
        width=network.dims[-1],
        has_map=True,
        format=order_of(description),
        balance=description.balance,
        record={
            "format": opened.origin.format,
            "model": description.model,
            "sha256": opened.origin.sha256,
            "notice": opened.origin.notice,
        },
        lines=lines,
    )


class _Network:
    """Answers with a network of this package, in evaluation mode."""

    def __init__(self, network: ConvNeXtV2) -> None:
        self.network = network
        self._on_meta: ConvNeXtV2 | None = None

    def __call__(self, images: Tensor) -> Answer:
        network = self.network
        if images.device.type == "meta":  # the memory of a step is estimated there
            self._on_meta = self._on_meta or copy.deepcopy(network).to("meta")
            network = self._on_meta
        encoded = network.encode(images)
        if network.norm is None:
            return Answer(None, encoded.float().mean((1, 2)), encoded)
        pooled = network.pool(encoded)
        return Answer(None if network.head is None else network.head(pooled), pooled, encoded)


def _from_artifact(artifact: Artifact) -> Teacher:
    card = artifact.card
    if card.kind in DENSE_KINDS:
        raise RecipeError(
            f"teacher = {artifact.path}: an artifact for {card.kind} returns no features. Give the "
            "run that it was exported from."
        )
    lines = [
        f"Teacher: {artifact.path}: artifact, {card.format}, {card.precision}, sha256 "
        f"{artifact.sha256[:16]}"
    ]
    if card.notice:
        lines.append(f"Licence: {card.notice}")
    if card.input == "pixels":
        lines.append("The teacher takes pixels, so it sees the batch rounded to 256 levels.")
    classes = card.arguments["num_classes"] or 0
    preprocessing = artifact.transform.preprocessing
    return Teacher(
        str(artifact.path),
        _Exported(artifact, preprocessing),
        preprocessing,
        class_names=list(card.class_names) if card.kind == "classifier" else [],
        rows=classes if card.kind == "classifier" else 0,
        width=card.arguments["dims"][-1],
        has_map=card.kind == "backbone",
        format=str(card.provenance.get("format", OURS)),
        balance=card.balance,
        record={
            "format": f"artifact, {card.format}, {card.precision}",
            "model": card.model,
            "sha256": artifact.sha256,
            "notice": card.notice,
        },
        lines=[*map(plain, lines)],
    )


class _Exported:
    """Answers with an artifact, which computes on the CPU."""

    def __init__(self, artifact: Artifact, preprocessing: Preprocessing) -> None:
        self._card, self._preprocessing = artifact.card, preprocessing
        self._run = artifact.open(torch.get_num_threads())

    def __call__(self, images: Tensor) -> Answer:
        if images.device.type == "meta":
            return _blank_answer(self._card, images)
        outputs = [
            torch.from_numpy(np.array(output)).to(images.device)
            for output in self._run(self._input(images))
        ]
        if self._card.kind == "backbone":
            stage = outputs[-1].permute(0, 2, 3, 1)
            return Answer(None, stage.mean((1, 2)), stage)
        if self._card.kind == "features":
            return Answer(None, outputs[0], None)
        if self._card.kind == "multi_label":
            return Answer(None, outputs[1], None)
        logits = outputs[0]
        if self._card.input == "pixels":  # the probabilities of logits / temperature
            tiny = torch.finfo(logits.dtype).tiny
            logits = logits.clamp_min(tiny).log() * self._card.temperature
        return Answer(logits, outputs[1], None)

    def _input(self, images: Tensor) -> Any:
        images = images.detach().float().cpu()
        if self._card.input == "images":
            return images.contiguous().numpy()
        mean, std = (
            torch.tensor(values).view(-1, 1, 1)
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        levels = (255 * (images * std + mean)).round().clamp(0, 255).to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous().numpy()


def _blank_answer(card: Card, images: Tensor) -> Answer:
    """Return an answer of the right shape, for memory estimates on the meta device."""
    n, height, width = len(images), images.shape[-2], images.shape[-1]
    stride, channels = 8 * card.arguments["stem_stride"], card.arguments["dims"][-1]
    features = images.new_zeros(n, channels)
    logits: Tensor | None = None
    last_map: Tensor | None = None
    if card.kind == "classifier":
        logits = images.new_zeros(n, card.arguments["num_classes"])
    if card.kind == "backbone":
        last_map = images.new_zeros(n, height // stride, width // stride, channels)
    return Answer(logits, features, last_map)
