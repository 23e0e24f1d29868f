"""Export a classifier or an encoder, and measure the artifact before it is put into place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.data.transforms import normaliser
from convnextv2.deploy.artifact import Artifact, save_card
from convnextv2.deploy.card import Card
from convnextv2.deploy.certificate import certify, check_int8, input_of
from convnextv2.deploy.formats import ARTIFACT_FORMATS, check_format, read_files
from convnextv2.deploy.formats.artifact_format import ArtifactFormat, Runner
from convnextv2.deploy.formats.onnx import onnx_needs
from convnextv2.deploy.graph import Graph, Input, Outputs, has_classes
from convnextv2.deploy.quantise import calibration_images, quantise
from convnextv2.errors import ArtifactError, RunError
from convnextv2.evaluation.unknown import UNKNOWN, Unknown, save_unknown
from convnextv2.files import sha256_of
from convnextv2.lock import building
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights

_FLOAT32_IMAGES = 64
"""The number of images on which the float32 form of an int8 artifact is timed."""


@dataclass(frozen=True)
class Form:
    """The form of an artifact.

    Attributes:
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: One of the format's precisions.
        outputs: The kind of its outputs; see `graph.OUTPUTS`.
        input: The kind of its input; see `graph.Graph`.
        dynamic_size: Whether it takes images of any multiple of the total stride.
    """

    format: str
    precision: str = "float32"
    outputs: Outputs = "classifier"
    input: Input = "images"
    dynamic_size: bool = False


@dataclass(frozen=True, eq=False)
class PixelEvidence:
    """The images that an artifact is measured on.

    Attributes:
        pixels: Real images at the model's size, uint8 (N, C, H, W).
        targets: Their classes, int64 (N,), or their labels, int64 (N, K), see `source.Targets`;
            None if they are not known.
        origin: The origin of the images, for messages.
        batch_size: The batch size of the comparison of speeds.
        seconds: The duration of the comparison of speeds.
        thresholds: For several labels: a threshold for each class; empty for 0.5.
    """

    pixels: Tensor
    targets: Tensor | None
    origin: str
    batch_size: int = 16
    seconds: float = 5.0
    thresholds: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """The facts about a model that its artifact states.

    Attributes:
        preprocessing: How images are prepared; see `Preprocessing.to_json`.
        class_names: The names of the classes.
        name: The name of the model's size.
        provenance: Where the weights came from.
        notice: The licence of the weights.
        thresholds: For several labels: a threshold for each class, on the probabilities that the
            temperature gives; else empty.
        temperature: The number by which logits are divided before softmax or sigmoid.
        balance: How frequent classes were in training; see `Card`.
    """

    preprocessing: Mapping[str, Any]
    class_names: list[str]
    name: str
    provenance: Mapping[str, Any]
    notice: str
    thresholds: list[float] = field(default_factory=list)
    temperature: float = 1.0
    balance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_weights(
        cls, weights: Weights, exported: Description | None = None, **computed: Any
    ) -> ModelFacts:
        """Collect the facts that opened weights state.

        Args:
            weights: The weights.
            exported: The network that is exported if it is a part of them, such as the encoder of
                a segmentor, which has no classes. None if it is all of them.
            **computed: Further facts: thresholds, temperature and balance.

        Raises:
            CheckpointError: The weights do not say how images are prepared.
        """
        description = exported or weights.description
        return cls(
            weights.preprocessing.to_json(),
            description.class_names,
            description.model,
            weights.provenance(),
            weights.origin.notice,
            **computed,
        )

    def entries(self) -> dict[str, Any]:
        """Return the entries of a `Card` that state these facts."""
        return {
            "model": self.name,
            "preprocessing": dict(self.preprocessing),
            "class_names": self.class_names,
            "thresholds": self.thresholds,
            "temperature": self.temperature,
            "provenance": dict(self.provenance),
            "notice": self.notice,
            "balance": dict(self.balance),
        }


def export_artifact(
    model: ConvNeXtV2,
    form: Form,
    folder: Path,
    evidence: PixelEvidence,
    facts: ModelFacts,
    *,
    fit_unknown: Callable[[Runner], Unknown] | None = None,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact of a classifier. Its folder appears only once its measurement has passed.

    Args:
        model: The model in float32 and in evaluation mode. It is not changed.
        form: The form of the artifact.
        folder: The folder.
        evidence: The images that the artifact is measured on.
        facts: The facts about the model that the artifact states.
        fit_unknown: Fits the "unknown" answer to the outputs of the finished artifact.
        overwrite: Whether to replace an existing artifact.

    Returns:
        The artifact.

    Raises:
        RunError: Another process is writing the folder, or has written it and `overwrite` is off.
        ArtifactError: The model does not have these outputs, or the artifact differs from the model
            by more than its precision allows.
        DeviceError: This machine cannot write or run the format.
        MissingPackageError: A package is not installed.
    """
    artifact_format = check_format(form.format, form.precision, to_write=True)
    _check_form(form, model)
    how = Preprocessing.read(facts.preprocessing)
    normalise = normaliser(how)
    graph = partial(
        Graph,
        outputs=form.outputs,
        input=form.input,
        mean=how.mean,
        std=how.std,
        temperature=facts.temperature,
        thresholds=facts.thresholds,
    )
    evidence = replace(evidence, thresholds=facts.thresholds)
    reference = graph(model).eval()
    example = input_of(form.input, evidence.pixels[:1], normalise)
    with building(folder) as temporary:
        made = temporary / "artifact"
        made.mkdir()
        file = made / artifact_format.file
        written_as = "float32" if form.precision == "int8" else form.precision
        copied = graph(copy.deepcopy(model)).eval()  # half precision converts weights in place
        artifact_format.write(copied, example, file, written_as, form.dynamic_size)
        measure = _quantise_and_measure if form.precision == "int8" else _measure
        runner, certificate = measure(artifact_format, made, form, reference, evidence, normalise)
        files = {file.name: sha256_of(file) for file in sorted(made.iterdir())}
        if fit_unknown is not None:
            save_unknown(made / UNKNOWN, fit_unknown(runner).for_model(files[artifact_format.file]))
        card = Card(
            format=form.format,  # type: ignore[arg-type]
            precision=form.precision,  # type: ignore[arg-type]
            kind=form.outputs,
            files=files,
            arguments=dict(model.arguments),
            input=form.input,
            outputs=list(reference.output_names),
            shapes=_shapes(form, reference, example, runner),
            unknown=sha256_of(made / UNKNOWN) if fit_unknown is not None else "",
            versions=versions(form.format),
            requires=requirements(form.format, file),
            **facts.entries(),
        )
        save_card(made, card, certificate)
        publish(made, folder, overwrite=overwrite)
    return Artifact(folder, card, certificate)


def _check_form(form: Form, model: ConvNeXtV2) -> None:
    """Raise ArtifactError if the model does not have the outputs."""
    if has_classes(form.outputs) and model.head is None:
        raise ArtifactError(
            "outputs = classifier: the model has no head. Use outputs features or backbone."
        )
    if form.outputs == "features" and model.norm is None:
        raise ArtifactError(
            "outputs = features: a bare encoder has no final norm. Use outputs backbone."
        )
    if form.precision == "int8" and not has_classes(form.outputs):
        raise ArtifactError(
            "precision = int8: is judged by the predicted classes. Use outputs classifier, or "
            "float16."
        )


def _measure(
    artifact_format: ArtifactFormat,
    made: Path,
    form: Form,
    reference: Graph,
    evidence: PixelEvidence,
    normalise: Callable[[Tensor], Tensor],
) -> tuple[Runner, dict[str, Any]]:
    """Open a model that has just been written, and measure it.

    Args:
        artifact_format: The format.
        made: The folder with the model's files.
        form: The form of the artifact.
        reference: The graph that the model was written from.
        evidence: The images that it is measured on.
        normalise: Turns pixels into images.

    Returns:
        The opened model, and its certificate.
    """
    runner = artifact_format.open(read_files(made), form.precision, torch.get_num_threads())
    certificate = certify(
        reference,
        runner,
        form.precision,
        evidence.pixels,
        evidence.targets,
        normalise=normalise,
        batch_size=evidence.batch_size,
        seconds=evidence.seconds,
        thresholds=evidence.thresholds,
        other_size=form.dynamic_size,
    )
    return runner, certificate | {"images_from": evidence.origin}


def _quantise_and_measure(
    artifact_format: ArtifactFormat,
    made: Path,
    form: Form,
    reference: Graph,
    evidence: PixelEvidence,
    normalise: Callable[[Tensor], Tensor],
) -> tuple[Runner, dict[str, Any]]:
    """Replace a float32 model that has just been written by its int8 form, and measure that.

    Some of the images calibrate it. It is measured on the other images, and its speed is compared
    with that of the float32 model.

    Args:
        artifact_format: The format.
        made: The folder with the model's files.
        form: The form of the artifact.
        reference: The graph that the model was written from.
        evidence: The images on which it is calibrated and measured.
        normalise: Turns pixels into images.

    Returns:
        The opened model, and its certificate.

    Raises:
        ArtifactError: It is not accurate enough, or no faster than in float32.
    """
    ratio = _speed_in_float32(artifact_format, made, reference, evidence, normalise)
    calibrates = calibration_images(len(evidence.pixels))
    images = input_of(form.input, evidence.pixels[calibrates], normalise)
    quantise(form.format, made / artifact_format.file, form.input, images.numpy())
    rest = replace(
        evidence,
        pixels=evidence.pixels[~calibrates],
        targets=evidence.targets[~calibrates] if evidence.targets is not None else None,
    )
    runner, certificate = _measure(artifact_format, made, form, reference, rest, normalise)
    certificate["calibrated_on"] = int(calibrates.sum())
    certificate["speed"]["float32_ratio"] = ratio
    check_int8(certificate, ratio)
    return runner, certificate


def _speed_in_float32(
    artifact_format: ArtifactFormat,
    made: Path,
    reference: Graph,
    evidence: PixelEvidence,
    normalise: Callable[[Tensor], Tensor],
) -> float:
    """Measure the speed of a float32 artifact, as a multiple of PyTorch's speed.

    The model is closed before this returns, so that its files can be replaced.
    """
    certificate = certify(
        reference,
        artifact_format.open(read_files(made), "float32", torch.get_num_threads()),
        "float32",
        evidence.pixels[:_FLOAT32_IMAGES],
        None,
        normalise=normalise,
        batch_size=evidence.batch_size,
        seconds=evidence.seconds,
    )
    ratio: float = certificate["speed"]["ratio"]
    return ratio


def publish(made: Path, folder: Path, *, overwrite: bool) -> None:
    """Move a finished artifact into its folder. Its place is empty only for an instant.

    Args:
        made: The artifact in a temporary folder, which the caller deletes.
        folder: The folder.
        overwrite: Whether to replace an existing artifact.

    Raises:
        RunError: The folder exists, and it is not to be replaced.
    """
    if folder.exists() and not overwrite:
        raise RunError(
            f"{folder}: another process wrote it in the meantime. Choose another folder for out."
        )
    old = made.with_name("old")
    try:
        if folder.exists():
            folder.rename(old)
        made.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


def _shapes(
    form: Form, reference: Graph, example: Tensor, runner: Runner
) -> dict[str, list[int | None]]:
    """Return the shapes of the input and the outputs, with None for dynamic sizes."""
    outputs = dict(zip(reference.output_names, runner(example.numpy()), strict=True))
    shapes = {form.input: _dynamic_input_shape(example.shape, form)}
    return shapes | {
        name: _dynamic_output_shape(value.shape, form) for name, value in outputs.items()
    }


def _dynamic_input_shape(shape: torch.Size, form: Form) -> list[int | None]:
    """Return the shape of an input, with None for dynamic sizes."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size:
        first = 1 if form.input == "pixels" else 2
        sizes[first : first + 2] = [None, None]
    return sizes


def _dynamic_output_shape(shape: tuple[int, ...], form: Form) -> list[int | None]:
    """Return the shape of an output, with None for dynamic sizes: the batch, and those of maps."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size and len(shape) > 2:
        sizes[-2:] = [None, None]
    return sizes


def requirements(format: str, file: Path) -> dict[str, str]:
    """Return the requirements of an ONNX file; empty for other formats."""
    return onnx_needs(file.read_bytes()) if format == "onnx" else {}


def versions(format: str) -> dict[str, str]:
    """Return the versions of the packages that make and run a format."""
    packages = ("convnextv2", "torch", *ARTIFACT_FORMATS[format].run_packages)
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
