"""Export a model to an artifact that is measured before anyone gets it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.deploy.artifact import Artifact, Card, save_card, sha256_of
from convnextv2.deploy.certificate import certify, check_int8
from convnextv2.deploy.formats import ARTIFACT_FORMATS, check_format, read_files
from convnextv2.deploy.formats.onnx import onnx_needs
from convnextv2.deploy.graph import Graph, Input, Outputs
from convnextv2.deploy.quantise import calibration_images, quantise
from convnextv2.errors import ArtifactError
from convnextv2.model.convnext import ConvNeXtV2


@dataclass(frozen=True)
class Form:
    """What an artifact is to be. format, precision: see `formats`. outputs, input: see `graph`. dynamic_size: images of any
    multiple of the total stride, where the format can."""

    format: str
    precision: str = "float32"
    outputs: Outputs = "classifier"
    input: Input = "images"
    dynamic_size: bool = False


@dataclass(frozen=True, eq=False)
class Evidence:
    """On what an artifact is measured. pixels: uint8 (N, C, H, W), real images at the model's size. targets: int64 (N,), or None
    where they are not known. origin: in words. batch_size, seconds: of the comparison of speeds."""

    pixels: Tensor
    targets: Tensor | None
    origin: str
    batch_size: int = 16
    seconds: float = 5.0


def export_artifact(
    model: ConvNeXtV2,
    form: Form,
    folder: Path,
    evidence: Evidence,
    *,
    preprocessing: Mapping[str, Any],
    class_names: list[str],
    temperature: float,
    name: str,
    provenance: Mapping[str, Any],
    notice: str,
) -> Artifact:
    """Write an artifact into `folder`, which appears only once it has been measured and found good.

    model: float32, in evaluation mode; not changed. Raises ArtifactError where the artifact is not as good as its precision
    allows, and DeviceError or MissingPackageError where the format cannot do it here."""
    chosen = check_format(form.format, form.precision, to_write=True)
    transform = EvalTransform.from_description(dict(preprocessing))
    if form.outputs == "classifier" and model.head is None:
        raise ArtifactError(
            "outputs = classifier: the model has no head. Use outputs features or backbone."
        )
    if form.outputs == "features" and model.norm is None:
        raise ArtifactError(
            "outputs = features: a bare encoder has no final norm. Use outputs backbone."
        )
    if form.precision == "int8" and form.outputs != "classifier":
        raise ArtifactError(
            "precision = int8: is judged by the classes it finds. Use outputs classifier, or float16."
        )

    def graph(of: ConvNeXtV2) -> Graph:
        return Graph(
            of, form.outputs, form.input, transform.mean, transform.std, temperature
        ).eval()

    reference = graph(model)
    normalise = BatchTransform(transform.mean, transform.std).normalise
    pixels, targets = evidence.pixels, evidence.targets
    example = pixels[:1].permute(0, 2, 3, 1) if form.input == "pixels" else normalise(pixels[:1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
        made = Path(temporary) / "artifact"
        made.mkdir()
        path, threads = made / chosen.file, torch.get_num_threads()
        written_as = "float32" if form.precision == "int8" else form.precision
        # A copy: half precision converts the weights in place.
        chosen.write(
            graph(copy.deepcopy(model)), example.contiguous(), path, written_as, form.dynamic_size
        )
        measure = {
            "normalise": normalise,
            "batch_size": evidence.batch_size,
            "seconds": evidence.seconds,
        }
        unquantised = 0.0
        if form.precision == "int8":
            runner = chosen.open(read_files(made), "float32", threads)
            plain = certify(reference, runner, "float32", pixels[:64], None, **measure)  # type: ignore[arg-type]
            unquantised = plain["speed"]["ratio"]
            del runner
            calibrates = calibration_images(len(pixels))
            images = (
                pixels[calibrates].permute(0, 2, 3, 1)
                if form.input == "pixels"
                else normalise(pixels[calibrates])
            )
            quantise(form.format, path, form.input, images.contiguous().numpy())
            pixels, targets = (
                pixels[~calibrates],
                targets[~calibrates] if targets is not None else None,
            )
        runner = chosen.open(read_files(made), form.precision, threads)
        certificate = certify(
            reference,
            runner,
            form.precision,
            pixels,
            targets,
            other_size=form.dynamic_size,
            **measure,  # type: ignore[arg-type]
        )
        certificate["images_from"] = evidence.origin
        if form.precision == "int8":
            certificate["calibrated_on"] = int(calibrates.sum())
            certificate["speed"]["float32_ratio"] = unquantised
            check_int8(certificate, unquantised)
        outputs = dict(
            zip(reference.output_names, runner(example.contiguous().numpy()), strict=True)
        )
        card = Card(
            format=form.format,  # type: ignore[arg-type]
            precision=form.precision,  # type: ignore[arg-type]
            kind=form.outputs,
            files={file.name: sha256_of(file) for file in sorted(made.iterdir())},
            model=name,
            arguments=dict(model.arguments),
            input=form.input,
            outputs=list(reference.output_names),
            shapes={form.input: _open_sizes(example.shape, form)}
            | {key: _open_maps(value.shape, form) for key, value in outputs.items()},
            preprocessing=dict(preprocessing),
            class_names=class_names,
            temperature=temperature,
            provenance=dict(provenance),
            notice=notice,
            versions={
                package: _version(package)
                for package in ("convnextv2", "torch", *ARTIFACT_FORMATS[form.format].run_packages)
            },
            requires=onnx_needs(path.read_bytes()) if form.format == "onnx" else {},
        )
        save_card(made, card, certificate)
        if folder.exists():
            folder.rename(
                Path(temporary) / "old"
            )  # deleted once the new one is there: a server may be looking
        made.rename(folder)
    return Artifact(folder, card, certificate)


def _open_sizes(shape: torch.Size, form: Form) -> list[int | None]:
    """An input's shape, with None for what may be of any size."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size:
        first = 1 if form.input == "pixels" else 2
        sizes[first : first + 2] = [None, None]
    return sizes


def _open_maps(shape: tuple[int, ...], form: Form) -> list[int | None]:
    """An output's shape likewise: rows and columns are the last two axes of maps, which are all that is not (N, D)."""
    sizes: list[int | None] = [None, *shape[1:]]
    if form.dynamic_size and len(shape) > 2:
        sizes[-2:] = [None, None]
    return sizes


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
