"""The answers of verbs that write, publish or describe weights."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from convnextv2.verbs.answers.keys import (
    ClassNames,
    HowPrepared,
    Licence,
    Lines,
    Provenance,
    Sha256,
    WrittenPath,
    means,
)


class Exported(TypedDict):
    """An artifact."""

    path: WrittenPath
    format: Annotated[str, means("onnx, openvino, aoti, ...")]
    precision: Annotated[str, means("The arithmetic.")]
    input: Annotated[str, means("images or pixels.")]
    outputs: Annotated[list[str], means("The names of what it returns.")]
    sha256: Annotated[str, means("SHA-256 of the model's file.")]
    licence: Licence
    certificate: Annotated[dict[str, Any], means("As in certificate.json.")]


class Converted(TypedDict):
    """Weights in the format of another library."""

    path: WrittenPath
    format: Annotated[str, means("The format, as in `--to`.")]
    notes: Lines


class Pushed(TypedDict):
    """A repository of the Hub."""

    repository: Annotated[str, means("OWNER/NAME.")]
    url: Annotated[str, means("Its address; empty with `--dry_run`.")]
    folder: Annotated[str, means("The folder that was kept; empty without `--out`.")]
    format: Annotated[str, means("transformers or timm.")]
    files: Annotated[list[str], means("The files of the repository.")]
    license: Annotated[str, means("The licence on the card; empty if there is none.")]
    base_model: Annotated[str, means("Where training started from; empty if unknown.")]


class LeftOut(TypedDict):
    """A tensor that is not part of the network."""

    name: Annotated[str, means("The name of the tensor.")]
    reason: Annotated[str, means("Why it is not used.")]


class Inspected(TypedDict):
    """A weights file."""

    path: Annotated[str, means("The file or folder.")]
    bytes: Annotated[int, means("The size of all its files.")]
    sha256: Sha256
    format: Annotated[str, means("convnextv2, timm, official, transformers, ...")]
    container: Annotated[str, means("The kind of file, such as safetensors.")]
    kind: Annotated[
        str, means("classifier, multi_label, encoder, fcmae, segmentation or detection.")
    ]
    model: Annotated[str, means("The size, such as convnextv2_tiny; custom for others.")]
    arguments: Annotated[dict[str, Any], means("The arguments of the network.")]
    fcmae: Annotated[dict[str, Any], means("The arguments of FCMAE; empty for other kinds.")]
    head: Annotated[dict[str, Any], means("Arguments of the head of a segmentor or detector.")]
    tensors: Annotated[int, means("The number of tensors.")]
    parameters: Annotated[int, means("The number of parameters.")]
    dtypes: Annotated[list[str], means("The data types of the tensors.")]
    preprocessing: HowPrepared
    class_names: ClassNames
    training: Annotated[dict[str, Any], means("Step, epoch and the figures measured then.")]
    provenance: Provenance
    licence: Licence
    has_average: Annotated[bool, means("Whether averaged weights exist beside them.")]
    not_finite: Annotated[list[str], means("The tensors with NaN or infinite values.")]
    left_out: Annotated[list[LeftOut], means("What is not part of the network.")]
    notes: Lines


class Model(TypedDict):
    """One size of the network."""

    model: Annotated[str, means("Its name.")]
    depths: Annotated[list[int], means("The blocks in each stage.")]
    dims: Annotated[list[int], means("The channels of each stage.")]
    parameters: Annotated[int, means("The parameters, with 1000 classes.")]
    gmacs: Annotated[float, means("Billions of multiply-adds of one image.")]


class PublicWeights(TypedDict):
    """Public weights, with `--weights`."""

    name: Annotated[str, means("What `--init` takes.")]
    repository: Annotated[str, means("OWNER/NAME on the Hugging Face Hub.")]
    parameters_m: Annotated[float, means("Millions of parameters.")]
    licence: Annotated[str, means("The identifier of the licence.")]
    allows_commerce: Annotated[bool, means("Whether it allows commercial use.")]
    top1: Annotated[float | None, means("Published top-1 on ImageNet-1K, in percent.")]
    image_size: Annotated[int, means("The side in pixels that it was measured at.")]
    note: Annotated[str, means("What else one should know.")]
