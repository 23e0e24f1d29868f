"""Export a model to an artifact that is measured before anyone gets it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.deploy.artifact import Artifact, Card, save_card
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

_FLOAT32_IMAGES = 64
"""On how many images the float32 form of an int8 artifact is measured. Only its speed counts."""


@dataclass(frozen=True)
class Form:
    """The form that an artifact is to have.

    Attributes:
        format: A key of `formats.ARTIFACT_FORMATS`.
        precision: One of the format's precisions.
        outputs: What it returns; see `graph.OUTPUTS`.
        input: What it takes; see `graph.Graph`.
        dynamic_size: Whether it takes images of any multiple of the total stride.
    """

    format: str
    precision: str = "float32"
    outputs: Outputs = "classifier"
    input: Input = "images"
    dynamic_size: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """The images that an artifact is measured on.

    Attributes:
        pixels: Real images at the model's size, uint8 (N, C, H, W).
        targets: Their classes, int64 (N,), or their labels, int64 (N, K), see `source.Targets`;
            None if they are not known.
        origin: Where the images come from, in words.
        batch_size: The batch size of the comparison of speeds.
        seconds: How long the comparison of speeds takes, in seconds.
        thresholds: For several labels: a threshold for each class; empty for 0.5.
    """

    pixels: Tensor
    targets: Tensor | None
    origin: str
    batch_size: int = 16
    seconds: float = 5.0
    thresholds: Sequence[float] = ()


def export_artifact(
    model: ConvNeXtV2,
    form: Form,
    folder: Path,
    evidence: Evidence,
    *,
    preprocessing: Mapping[str, Any],
    class_names: list[str],
    thresholds: list[float],
    temperature: float,
    name: str,
    provenance: Mapping[str, Any],
    notice: str,
    balance: Mapping[str, Any] | None = None,
    fit_unknown: Callable[[Runner], Unknown] | None = None,
    overwrite: bool = True,
) -> Artifact:
    """Write an artifact into a folder that appears only once the artifact is found good.

    Args:
        model: The model in float32 and in evaluation mode. It is not changed.
        form: What the artifact is to be.
        folder: The folder.
        evidence: What the artifact is measured on.
        preprocessing: How images are prepared; see `EvalTransform.from_description`.
        class_names: The names of the classes.
        thresholds: For several labels: a threshold for each class, on the probabilities that the
            temperature gives; else empty.
        temperature: The number by which logits are divided before softmax or sigmoid.
        name: The name of the model's size.
        provenance: Where the weights came from.
        notice: The licence of the weights.
        balance: How frequent classes were in training; see `Card`.
        fit_unknown: Fits the "unknown" answer to what the finished artifact computes.
        overwrite: Whether an artifact that is there is replaced.

    Returns:
        The artifact.

    Raises:
        RunError: Another process is writing the folder, or wrote it meanwhile without `overwrite`.
        ArtifactError: The model does not have these outputs, or the artifact is not as good as its
            precision allows.
        DeviceError: The format cannot do it on this machine.
        MissingPackageError: A package is not installed.
    """
    chosen = check_format(form.format, form.precision, to_write=True)
    _check_form(form, model)
    transform = EvalTransform(Preprocessing.read(preprocessing))
    normalise = BatchTransform(transform.preprocessing.mean, transform.preprocessing.std).normalise
    graph = partial(
        Graph,
        outputs=form.outputs,
        input=form.input,
        mean=transform.preprocessing.mean,
        std=transform.preprocessing.std,
        temperature=temperature,
        thresholds=thresholds,
    )
    evidence = replace(evidence, thresholds=thresholds)
    reference = graph(model).eval()
    example = input_of(form.input, evidence.pixels[:1], normalise)
    with building(folder) as temporary:
        made = temporary / "artifact"
        made.mkdir()
        written_as = "float32" if form.precision == "int8" else form.precision
        copied = graph(copy.deepcopy(model)).eval()  # half precision converts weights in place
        chosen.write(copied, example, made / chosen.file, written_as, form.dynamic_size)
        measure = _quantised if form.precision == "int8" else _measured
        runner, certificate = measure(chosen, made, form, reference, evidence, normalise)
        files = {file.name: sha256_of(file) for file in sorted(made.iterdir())}
        if fit_unknown is not None:
            save_unknown(made / UNKNOWN, fit_unknown(runner).for_model(files[chosen.file]))
        card = Card(
            format=form.format,  # type: ignore[arg-type]
            precision=form.precision,  # type: ignore[arg-type]
            kind=form.outputs,
            files=files,
            model=name,
            arguments=dict(model.arguments),
            input=form.input,
            outputs=list(reference.output_names),
            shapes=_shapes(form, reference, example, runner),
            preprocessing=dict(preprocessing),
            class_names=class_names,
            thresholds=thresholds,
            temperature=temperature,
            provenance=dict(provenance),
            notice=notice,
            balance=dict(balance or {}),
            unknown=sha256_of(made / UNKNOWN) if fit_unknown is not None else "",
            versions=versions(form.format),
            requires=onnx_needs((made / chosen.file).read_bytes()) if form.format == "onnx" else {},
        )
        save_card(made, card, certificate)
        put(made, folder, overwrite=overwrite)
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
            "precision = int8: is judged by the classes that it finds. Use outputs classifier, or "
            "float16."
        )


def _measured(
    chosen: ArtifactFormat,
    made: Path,
    form: Form,
    reference: Graph,
    evidence: Evidence,
    normalise: Callable[[Tensor], Tensor],
) -> tuple[Runner, dict[str, Any]]:
    """Open a model that was just written, and measure it.

    Args:
        chosen: The format.
        made: The folder with the model's files.
        form: What the artifact is to be.
        reference: The graph that the model was written from.
        evidence: What it is measured on.
        normalise: Turns pixels into images.

    Returns:
        The opened model, and its certificate.
    """
    runner = chosen.open(read_files(made), form.precision, torch.get_num_threads())
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


def _quantised(
    chosen: ArtifactFormat,
    made: Path,
    form: Form,
    reference: Graph,
    evidence: Evidence,
    normalise: Callable[[Tensor], Tensor],
) -> tuple[Runner, dict[str, Any]]:
    """Replace a float32 model that was just written by its int8 form, and measure that.

    Some of the images calibrate it. It is measured on the others, and beside the float32 model.

    Args:
        chosen: The format.
        made: The folder with the model's files.
        form: What the artifact is to be.
        reference: The graph that the model was written from.
        evidence: What it is calibrated and measured on.
        normalise: Turns pixels into images.

    Returns:
        The opened model, and its certificate.

    Raises:
        ArtifactError: It is not accurate enough, or no faster than in float32.
    """
    ratio = _speed_in_float32(chosen, made, reference, evidence, normalise)
    calibrates = calibration_images(len(evidence.pixels))
    images = input_of(form.input, evidence.pixels[calibrates], normalise)
    quantise(form.format, made / chosen.file, form.input, images.numpy())
    rest = replace(
        evidence,
        pixels=evidence.pixels[~calibrates],
        targets=evidence.targets[~calibrates] if evidence.targets is not None else None,
    )
    runner, certificate = _measured(chosen, made, form, reference, rest, normalise)
    certificate["calibrated_on"] = int(calibrates.sum())
    certificate["speed"]["float32_ratio"] = ratio
    check_int8(certificate, ratio)
    return runner, certificate


def _speed_in_float32(
    chosen: ArtifactFormat,
    made: Path,
    reference: Graph,
    evidence: Evidence,
    normalise: Callable[[Tensor], Tensor],
) -> float:
    """Measure the speed of a float32 artifact, as a multiple of PyTorch's.

    The model is closed before this returns, so that its files can be replaced.
    """
    certificate = certify(
        reference,
        chosen.open(read_files(made), "float32", torch.get_num_threads()),
        "float32",
        evidence.pixels[:_FLOAT32_IMAGES],
        None,
        normalise=normalise,
        batch_size=evidence.batch_size,
        seconds=evidence.seconds,
    )
    ratio: float = certificate["speed"]["ratio"]
    return ratio


def put(made: Path, folder: Path, *, overwrite: bool) -> None:
    """Move an artifact into its place. A server may be looking, so the old one goes last.

    Args:
        made: The artifact in a temporary folder, which the caller deletes.
        folder: Its place.
        overwrite: Whether an artifact that is there is replaced.

    Raises:
        RunError: There is one, and it is not to be replaced.
    """
    if folder.exists() and not overwrite:
        raise RunError(
            f"{folder}: another process wrote it meanwhile. Choose another folder for out."
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
    """Return the shapes of the input and the outputs, with None for sizes that are open."""
    outputs = dict(zip(reference.output_names, runner(example.numpy()), strict=True))
    shapes = {form.input: _open_sizes(example.shape, form)}
    return shapes | {name: _open_maps(value.shape, form) for name, value in outputs.items()}


def _open_sizes(shape: torch.Size, form: Form) -> list[int | None]:
    """Return an input's shape, with None for sizes that are open."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size:
        first = 1 if form.input == "pixels" else 2
        sizes[first : first + 2] = [None, None]
    return sizes


def _open_maps(shape: tuple[int, ...], form: Form) -> list[int | None]:
    """Return an output's shape likewise. If it is not (N, D), it ends in rows and columns."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size and len(shape) > 2:
        sizes[-2:] = [None, None]
    return sizes


def versions(format: str) -> dict[str, str]:
    """Return the versions of the packages that make and run a format."""
    packages = ("convnextv2", "torch", *ARTIFACT_FORMATS[format].run_packages)
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
