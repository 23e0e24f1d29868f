"""The options of verbs that write, publish, describe or list weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from convnextv2.deploy.names import FormatName, PrecisionName
from convnextv2.preprocessing import LONGEST_SIDE_PX
from convnextv2.recipe.options import REQUIRED, Options, PathLike, argument, option
from convnextv2.recipe.prior import Prior
from convnextv2.verbs.options.shared import COVERAGE, LABELLED_IMAGES, PRIOR, RUN, json_option


@dataclass(frozen=True, kw_only=True)
class ExportOptions(
    Options,
    verb="export",
    knobs=(*LABELLED_IMAGES, "batch_size", "workers", "bad_images", "max_image_pixels"),
    batch_size=16,
):
    """Export a model as an ONNX, PyTorch or OpenVINO artifact, and certify how well they agree."""

    run: PathLike = argument("RUN", RUN)
    format: FormatName = option("onnx", "Format of the artifact.", metavar="F")
    precision: PrecisionName = option(
        "float32",
        "Arithmetic of the artifact. GRN and layer norm compute their statistics in float32 in any "
        "case.",
        metavar="P",
    )
    outputs: Literal["classifier", "features", "backbone"] = option(
        "classifier",
        "What the model returns: logits, embedding and explanation map (classifier), only the "
        "embedding (features), or the feature maps of the four stages (backbone).",
        metavar="O",
    )
    input: Literal["images", "pixels"] = option(
        "images",
        "What the model takes: normalised images, or uint8 pixels. With pixels it returns "
        "probabilities instead of logits.",
        metavar="I",
    )
    dynamic_size: bool = option(
        False, "Accept images of any size that is a multiple of the total stride."
    )
    calibrate: bool = option(
        False, "Fit the temperature of the probabilities to the validation images."
    )
    coverage: float | None = option(
        None,
        f"{COVERAGE} What the artifact then reports about unknown images is fitted on the "
        "validation images.",
        metavar="C",
        gt=0,
        lt=1,
    )
    prior: Prior = option("trained", PRIOR, metavar="P", ge=0, le=1_000)
    images: int = option(
        512,
        "Measure on at most this many validation images, evenly spaced in their order.",
        metavar="N",
        ge=1,
        le=1_000_000_000,
    )
    seconds: float = option(
        5.0, "Minimum time for the comparison of speeds.", metavar="S", unit="s", ge=0, le=86_400
    )
    out: PathLike = option(
        "",
        "Folder to write. If empty, artifacts/FORMAT-PRECISION in the run.",
        metavar="FOLDER",
    )
    layout: Literal["folder", "triton", "ovms"] = option(
        "folder",
        "Write a plain folder, or a model repository for Triton or OpenVINO Model Server (ovms) "
        "in `out`.",
        metavar="L",
    )
    name: str = option(
        "",
        "Name of the model in a model repository. If empty, the name of the run.",
        metavar="NAME",
    )
    overwrite: bool = option(False, "Replace an artifact that already exists.")
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options, verb="convert"):
    """Convert weights in any known format to the format of another library."""

    weights: PathLike = argument(
        "WEIGHTS",
        "Run folder, weights file, folder from the Hub, or OWNER/NAME on the Hugging Face Hub.",
    )
    to: Literal[
        "official",
        "timm",
        "transformers",
        "mmpretrain",
        "mindcv",
        "convnextv2",
        "official-v1",
        "timm-v1",
        "transformers-v1",
        "mmpretrain-v1",
        "mindcv-v1",
        "torchvision-v1",
        "dinov3-v1",
    ] = option(
        REQUIRED,
        "Format to write. Names that end in -v1 stand for the first version of ConvNeXt, which has "
        "no GRN: its weights must still be zero.",
        metavar="FORMAT",
    )
    out: PathLike = option(
        REQUIRED,
        "File to write if the path has a suffix; otherwise a folder for the Hub.",
        metavar="PATH",
    )
    ema: bool = option(False, "Convert the averaged weights of a training checkpoint.")
    allow_drift: bool = option(
        False,
        "Also write weights with which the target library would compute slightly different "
        "outputs.",
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options, verb="push"):
    """Publish a model on the Hugging Face Hub, with a card, its licence and its figures."""

    run: PathLike = argument("RUN", "Run folder, checkpoint or weights file.")
    repository: str = argument("OWNER/NAME", "Repository, which is created if it does not exist.")
    to: Literal["transformers", "timm"] = option(
        "transformers",
        "Library that reads the weights. transformers.js reads those for transformers.",
        metavar="FORMAT",
    )
    onnx: Literal["auto", "on", "off"] = option(
        "auto",
        "Whether to add ONNX files for transformers.js. auto: if the required packages are "
        "installed.",
        metavar="O",
    )
    public: bool = option(False, "Make a new repository public. Otherwise it is private.")
    revision: str = option(
        "",
        "Branch to push to, which is created if it does not exist. If empty, main.",
        metavar="NAME",
    )
    license: str = option(
        "",
        "Licence on the card, such as apache-2.0. If empty, that of the weights that training "
        "started from.",
        metavar="ID",
    )
    about: str = option("", "What the model is for, as Markdown for the card.", metavar="TEXT")
    allow_drift: bool = option(
        False, "Also push weights with which the library would compute slightly different outputs."
    )
    out: PathLike = option("", "Folder to keep a copy of the pushed files in.", metavar="FOLDER")
    dry_run: bool = option(False, "Write the folder to `out` and upload nothing.")
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options, verb="inspect"):
    """Describe a run, or weights in any known format."""

    weights: PathLike = argument("WEIGHTS", RUN)
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(Options, verb="models"):
    """List the model sizes, or the public weights to start from."""

    pattern: str = argument(
        "PATTERN", "List only the sizes that match this pattern, such as '*tiny'.", default="*"
    )
    image_size: int = option(
        224,
        "Side of the image for which multiply-adds are counted.",
        metavar="PX",
        unit="px",
        ge=1,
        le=LONGEST_SIDE_PX,
    )
    weights: bool = option(
        False, "List public weights that `init` takes, with licence, size and published accuracy."
    )
    json: bool = json_option()
