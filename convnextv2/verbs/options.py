"""The options of every verb, each declared once with its type, default and help.

This module does not import torch, so that `--help` is fast. Each verb's function is in a module of
its own in this folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from convnextv2.deploy.names import FormatName, PrecisionName
from convnextv2.recipe.knobs import Recipe, group_of, knobs_of
from convnextv2.recipe.options import REQUIRED, Options, PathLike, argument, option
from convnextv2.recipe.prior import Prior
from convnextv2.server.limits import Limits

INFERENCE = (
    *("device", "precision", "kernels", "batch_size", "workers", "bad_images"),
    "max_image_pixels",
)
"""Knobs of the verbs that apply a trained model to images."""

LABELLED_IMAGES = (
    *("data_dir", "dataset", "dataset_download", "train_split", "val_split", "val_fraction"),
    *("class_order", "columns", "images_dir", "image_suffix", "labels", "label_separator", "seed"),
    "shard_cache_gb",
)
"""Knobs that select the labelled images to measure."""

_PREPARED = (
    *("image_size", "in_channels", "value_range", "interpolation", "antialias", "eval_preset"),
    *("crop_pct", "mean", "std"),
)
"""Knobs that say how those images are prepared."""

_RANKS = ("distribute", "rank_timeout_s", "data_wait_s")
"""Knobs that concern ranks and unavailable data."""

_SHOWN = (
    *("data_dir", "out", "resume", "init", "model", "epochs", "batch_size", "lr", "image_size"),
    *("device", "precision", "workers", "seed"),
)
"""Knobs of train and pretrain that most people need."""

_PRIOR = (
    "Frequencies of the classes for which probabilities hold: as training left them (trained), "
    "those of the training images (natural), or equal ones, which finds more of the rare classes "
    "(balanced). A number tau: subtract tau times the logarithm of the trained frequencies from "
    "the logits (1 is balanced)."
)

_COVERAGE = (
    "Share of images for which the right class is to be among those that cannot be excluded, for "
    "example 0.9."
)

RECIPE = "Recipe: a YAML file, or a name that `convnextv2 recipes` lists."
_RUN = "Run folder, checkpoint, weights file or artifact."


def _json() -> Any:
    """Declare the option that makes a verb answer in JSON; see `verbs.answers`."""
    return option(False, "Print the answer as JSON, for use by other programs.")


def _show_images() -> Any:
    """Declare the option that shows what training would see."""
    return option(
        "",
        "Write the first augmented training images to this PNG file, as the network would get "
        "them, and stop before training. No run folder is written.",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(
    Options,
    verb="pretrain",
    knobs=knobs_of("pretrain"),
    takes_recipe=True,
    shown=(*_SHOWN, "mask_ratio"),
):
    """Pre-train on images without labels (FCMAE)."""

    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    show_images: PathLike = _show_images()


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    Options,
    verb="train",
    knobs=knobs_of("train"),
    takes_recipe=True,
    shown=(*_SHOWN, "val_split", "ema"),
):
    """Train a classifier, from scratch or from --init."""

    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    show_images: PathLike = _show_images()


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(
    Options,
    verb="validate",
    knobs=(
        *(*INFERENCE, *LABELLED_IMAGES, *_PREPARED, *_RANKS),
        *("val_precision", "init", "ema", "model", "depths", "dims", "num_classes", "mindcv_files"),
        *("task", "classes", "ignore_values", "reduce_zero_label", "slide", "test_scales"),
        *("test_flip", "annotations"),
    ),
    takes_recipe=True,
):
    """Evaluate a run, or the weights in --init (MindCV: --ckpt_path), on labelled images."""

    run: PathLike | None = argument("RUN", _RUN, default=None)
    config: PathLike | None = option(None, RECIPE, metavar="RECIPE")
    prior: Prior = option("trained", _PRIOR, metavar="P", ge=0)
    coverage: float | None = option(
        None,
        f"{_COVERAGE} Fits what predict says of unknown images on half of the images, unless that "
        "was done, and tests it on the others.",
        metavar="C",
        gt=0,
        lt=1,
    )
    tta: Literal["none", "flip", "scales"] = option(
        "none",
        "Average a classifier's probabilities over views of each image: it and its mirror image "
        "(flip), or both at 1, 1.25 and 1.5 times the size (scales).",
        metavar="V",
    )
    answers: PathLike = option(
        "",
        "File with several right classes for each image, as JSON or CSV. The share of images whose "
        "most probable class is one of them is measured too.",
        metavar="FILE",
    )
    sizes: tuple[int, ...] = option(
        (), "Also measure a classifier at these image sizes.", metavar="S", unit="px"
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options, verb="predict", knobs=INFERENCE):
    """Classify images."""

    run: PathLike = argument("RUN", _RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    top_k: int = option(
        5, "Number of classes to show, if an image has one class.", metavar="K", ge=1
    )
    threshold: float = option(
        0.5,
        "Score from which on objects are named and drawn, if the model is a detector.",
        metavar="T",
        ge=0,
        le=1,
    )
    prior: Prior = option("trained", _PRIOR, metavar="P", ge=0)
    out: PathLike = option(
        "",
        "Also write the predictions to this file, whose ending decides the format: .csv, .json, or "
        ".jsonl for one JSON object a line. Of segmentors and detectors, it is a folder for "
        "pictures and data.",
        metavar="FILE",
    )
    json: bool = option(False, "Print one JSON object for each image, for use by other programs.")
    server: str = option(
        "",
        "Ask the server at this address instead. RUN is then the name of a model on that server.",
        metavar="URL",
    )
    api_key: str = option(
        "",
        "API key of the server. If empty, the environment variable CONVNEXTV2_API_KEY is used.",
        metavar="KEY",
    )


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(
    Options,
    verb="embed",
    knobs=(*INFERENCE, "columns", "images_dir", "image_suffix"),
    bad_images="skip",
):
    """Write the embeddings of images as NPY, CSV or Parquet."""

    run: PathLike = argument("RUN", _RUN)
    images: Sequence[PathLike] = argument(
        "IMAGE", "Image files, or folders of them, or one table that lists images.", many=True
    )
    out: PathLike = option(
        "embeddings.npy",
        "File to write, whose ending decides the format: .npy with the paths in a CSV file beside "
        "it, .csv, or .parquet.",
        metavar="FILE",
    )
    normalize: Literal["none", "l2"] = option(
        "none", "Whether to divide each embedding by its Euclidean norm (l2).", metavar="N"
    )
    labels: Literal["none", "folder", "table"] = option(
        "none",
        "Where labels come from: nowhere, the name of the folder that an image lies in, or the "
        "table.",
        metavar="L",
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options, verb="compare", knobs=(*INFERENCE, *LABELLED_IMAGES)):
    """Compare runs: accuracy image by image, curves, classes, settings and cost."""

    runs: Sequence[PathLike] = argument(
        "RUN", "Run folders, weights files or artifacts, two or more.", many=True
    )
    out: PathLike = option("comparison.html", "Page to write.", metavar="FILE")
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(Options, verb="probe", knobs=(*INFERENCE, *LABELLED_IMAGES), bad_images="skip"):
    """Measure frozen features by nearest neighbours and a linear probe."""

    run: PathLike = argument("RUN", _RUN)
    k: int = option(20, "Number of nearest neighbours that vote.", metavar="K", ge=1)
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class AuditOptions(
    Options,
    verb="audit",
    knobs=(
        *("train_split", "val_split", "columns", "images_dir", "image_suffix", "labels"),
        *("label_separator", "annotations", "classes", "ignore_values", "reduce_zero_label"),
        *("value_range", "max_image_pixels", "batch_size", "device", "precision", "kernels"),
    ),
):
    """Audit images before training: bad files, copies, leaks, odd images, wrong labels."""

    data: PathLike = argument(
        "DATA", "Folder of images, table, or annotated data of any task, as train takes them."
    )
    task: Literal["auto", "classification", "segmentation", "detection"] = option(
        "auto",
        "What the data are for. auto: detection if there are boxes, segmentation if there are "
        "label maps, else classification.",
        metavar="TASK",
    )
    in_channels: int | None = option(
        None,
        "Number of channels that the network takes. If empty, it is 3, or the number of channels "
        "of the first image.",
        metavar="N",
        ge=1,
    )
    init: str = option(
        "",
        "Encoder by whose features labels are judged: a run, weights of any format, or an "
        "artifact. If empty, a quick descriptor of the images themselves is used.",
        metavar="WEIGHTS",
    )
    wrong_labels: Literal["drop", "keep", "change"] = option(
        "drop",
        "What the corrected data do with training images whose labels are probably wrong: leave "
        "them out (drop), keep them, or change the labels to the suggested ones.",
        metavar="W",
    )
    out: PathLike = option("audit", "Folder to write.", metavar="FOLDER")
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(
    Options, verb="explain", knobs=(*INFERENCE, *LABELLED_IMAGES), bad_images="skip", batch_size=32
):
    """Explain answers: maps of images; or a map of embeddings, mistakes and their neighbours."""

    run: PathLike = argument("RUN", "Run folder, checkpoint or weights file.")
    images: Sequence[PathLike] = argument(
        "IMAGE",
        "Image files, or folders of them, to explain one by one. Without any, the labelled images "
        "of the run or of data_dir are explained as a whole.",
        default=(),
        many=True,
    )
    out: PathLike = option("explanation.html", "Page to write.", metavar="FILE")
    target: str = option(
        "", "Class to explain. If empty, the most probable one of each image.", metavar="CLASS"
    )
    against: str = option(
        "", "Class to explain against: why is it the one and not this one?", metavar="CLASS"
    )
    patch_px: int | None = option(
        None,
        "Side of the square that covers a part of the image, as the network sees it. If empty, a "
        "seventh of its shorter side.",
        metavar="PX",
        unit="px",
        ge=1,
    )
    step_px: int | None = option(
        None,
        "Distance from one square to the next. If empty, half of its side.",
        metavar="PX",
        unit="px",
        ge=1,
    )
    pictures: str = option(
        "", "Folder for the maps as PNG files as well. If empty, none.", metavar="FOLDER"
    )
    mistakes: int = option(24, "Number of mistakes to show.", metavar="N", ge=0)
    neighbours: int = option(
        2, "Number of training images to show beside each mistake.", metavar="N", ge=0
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class PackDataOptions(
    Options,
    verb="pack_data",
    knobs=("train_split", "val_split", "class_order", "columns", "images_dir", "image_suffix"),
):
    """Pack a folder or table of images into tar files of WebDataset's form, with an index."""

    data: PathLike = argument("FOLDER", "Folder of images, or a table of them.")
    shards: PathLike = argument("SHARDS", "Folder to write the tar files to.")
    images_per_shard: int = option(
        5000, "Number of images in a tar file; the last one has the rest.", metavar="N", ge=1
    )
    labelled: bool = option(
        True, "Pack the classes too. Without them, pretrain can use the shards, and train cannot."
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class ExportOptions(
    Options,
    verb="export",
    knobs=(*LABELLED_IMAGES, "batch_size", "workers", "bad_images", "max_image_pixels"),
    batch_size=16,
):
    """Write a model as an ONNX, PyTorch or OpenVINO artifact, and certify how well it agrees."""

    run: PathLike = argument("RUN", _RUN)
    format: FormatName = option("onnx", "Format of the artifact.", metavar="F")
    precision: PrecisionName = option(
        "float32",
        "Arithmetic of the artifact. GRN and layer norm keep float32 statistics in every "
        "precision.",
        metavar="P",
    )
    outputs: Literal["classifier", "features", "backbone"] = option(
        "classifier",
        "What the model returns: logits, embedding and explanation map (classifier), the "
        "embedding alone (features), or the feature maps of the four stages (backbone).",
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
        f"{_COVERAGE} What the artifact then says of unknown images is fitted on the validation "
        "images.",
        metavar="C",
        gt=0,
        lt=1,
    )
    prior: Prior = option("trained", _PRIOR, metavar="P", ge=0)
    images: int = option(
        512, "Measure on at most this many validation images, spread evenly.", metavar="N", ge=1
    )
    seconds: float = option(
        5.0, "Minimum time for the comparison of speeds.", metavar="S", unit="s", ge=0
    )
    out: PathLike = option(
        "",
        "Folder to write. If empty, it is artifacts/FORMAT-PRECISION in the run.",
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
        "Name of the model in a model repository. If empty, it is the name of the run.",
        metavar="NAME",
    )
    overwrite: bool = option(False, "Replace an artifact that already exists.")
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Limits, Options, verb="serve", knobs=("device", "precision", "kernels")):
    """Serve models over HTTP, with a web page to try them."""

    models: Sequence[PathLike] = argument(
        "MODEL",
        "[NAME[@VERSION]=]PATH of a run, weights file or artifact, or OWNER/NAME on the Hugging "
        "Face Hub.",
        many=True,
    )
    host: str = option(
        "127.0.0.1", "Address to listen on. 0.0.0.0 listens on all addresses.", metavar="H"
    )
    port: int = option(
        8000, "Port to listen on. 0 chooses a free port.", metavar="N", ge=0, lt=65536
    )
    api_key: str = option(
        "",
        "API key that clients must send. If empty, the environment variable CONVNEXTV2_API_KEY "
        "is used.",
        metavar="KEY",
    )
    api_key_file: str = option(
        "",
        "File with further API keys, one on each line. SIGHUP makes the server read it again.",
        metavar="FILE",
    )
    cors_origins: str = option(
        "", "Origins whose web pages may call the server, separated by commas.", metavar="O"
    )
    access_log: Literal["failed", "all", "json", "off"] = option(
        "failed",
        "Which requests to log: failed ones, all, all as JSON (json), or none (off).",
        metavar="L",
    )
    ssl_certfile: str = option(
        "",
        "Certificate for HTTPS, in PEM format. SIGHUP makes the server read it again.",
        metavar="FILE",
    )
    ssl_keyfile: str = option("", "Private key of the certificate, not encrypted.", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options, verb="convert"):
    """Convert weights of any known format to the format of another library."""

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
        "Format to write. Names that end in -v1 mean a ConvNeXt of the first version, which "
        "needs a GRN that is still zero.",
        metavar="FORMAT",
    )
    out: PathLike = option(
        REQUIRED,
        "File to write if the path has a suffix; otherwise a folder for the Hub.",
        metavar="PATH",
    )
    ema: bool = option(False, "Convert the averaged weights of a training checkpoint.")
    allow_drift: bool = option(
        False, "Also write weights that the target library would compute slightly differently."
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options, verb="push"):
    """Publish a model on the Hugging Face Hub, with a card, its licence and its figures."""

    run: PathLike = argument("RUN", "Run folder, checkpoint or weights file.")
    repository: str = argument("OWNER/NAME", "Repository, which is made if it does not exist.")
    to: Literal["transformers", "timm"] = option(
        "transformers",
        "Library that reads the weights. transformers.js reads those for transformers.",
        metavar="FORMAT",
    )
    onnx: Literal["auto", "on", "off"] = option(
        "auto",
        "Whether to add ONNX files for transformers.js. auto: if the packages for it are "
        "installed.",
        metavar="O",
    )
    public: bool = option(False, "Make a new repository public. Otherwise it is private.")
    revision: str = option(
        "", "Branch to push to, which is made if it does not exist. If empty, main.", metavar="NAME"
    )
    license: str = option(
        "",
        "Licence on the card, such as apache-2.0. If empty, it is that of the weights that "
        "training started from.",
        metavar="ID",
    )
    about: str = option("", "What the model is for, as Markdown for the card.", metavar="TEXT")
    allow_drift: bool = option(
        False, "Also push weights that the library would compute slightly differently."
    )
    out: PathLike = option("", "Keep the folder that is pushed here.", metavar="FOLDER")
    dry_run: bool = option(False, "Write the folder to `out` and upload nothing.")
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options, verb="inspect"):
    """Describe a checkpoint of any known format."""

    weights: PathLike = argument("WEIGHTS", _RUN)
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class InferOptions(Options, verb="infer", knobs=INFERENCE, foreign=True):
    """Print the five best classes of one image as a dictionary, as MindCV's infer.py does."""

    image_path: PathLike = option("", "Image to classify.", metavar="FILE")
    ckpt_path: PathLike = option(
        "", "Weights of any known format, or a run folder.", metavar="CKPT"
    )
    model: str = option(
        "", "Name of the model. It is only checked: the weights say what they are.", metavar="NAME"
    )
    top_k: int = option(5, "Number of classes to show.", metavar="K", ge=1)


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(
    Options,
    verb="reconstruct",
    knobs=("device", "bad_images", "max_image_pixels", "seed", "mask_ratio"),
):
    """Show how a pre-trained run reconstructs masked images."""

    run: PathLike = argument("RUN", _RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    out: PathLike = option("reconstructions.png", "Image file to write.", metavar="FILE")
    count: int = option(16, "Show at most this many images, spread evenly.", metavar="N", ge=1)


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(Options, verb="replay"):
    """Show a step that was not finite: its images, and the loss and gradient of each image."""

    run: PathLike = argument("RUN", "Run folder.")
    step: int | None = option(
        None, "Step to show. If empty, it is the last one that was kept.", metavar="N", ge=1
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions(
    Options,
    verb="statistics",
    knobs=(
        *("value_range", "train_split", "max_image_pixels", "workers", "seed"),
        *("columns", "images_dir", "image_suffix"),
    ),
):
    """Measure images, channel by channel: mean, std and value_range for a recipe."""

    data: PathLike = argument("DATA", "Folder of images, or a table. Labels are not needed.")
    in_channels: int | None = option(
        None,
        "Number of channels that the network takes. If empty, it is 3, or the number of channels "
        "of the first image.",
        metavar="N",
        ge=1,
    )
    max_images: int | None = option(
        None,
        "Measure at most this many images, chosen at random but always in the same way. If "
        "empty, all are measured.",
        metavar="N",
        ge=1,
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options, verb="plan", knobs=tuple(Recipe.model_fields), takes_recipe=True):
    """Measure the first steps of a recipe to predict its time, memory and disk space."""

    verb: Literal["", "train", "pretrain"] = argument(
        "VERB", "train or pretrain. If empty, it is the verb that the recipe is for.", default=""
    )
    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    probe_seconds: float = option(30.0, "How long to measure.", metavar="S", unit="s", gt=0)
    images_per_second: float | None = option(
        None,
        "The pace of one device, if it is known. Nothing is measured here then.",
        metavar="X",
        gt=0,
    )
    ranks: int | None = option(
        None,
        "Also plan for this many devices, each with the pace of one; see link_gbit.",
        metavar="N",
        ge=1,
    )
    link_gbit: float = option(
        100.0,
        "With ranks: what the slowest link between two neighbours of them sends and receives at "
        "the same time.",
        metavar="G",
        unit="Gbit/s",
        gt=0,
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(
    Options,
    verb="benchmark",
    knobs=(
        *("device", "precision", "kernels", "compile", "tile", "mask_ratio", "drop_path_rate"),
        *("optimizer", *sorted(group_of("data")), *sorted(group_of("augmentation"))),
    ),
    batch_size=32,
):
    """Measure training steps, inference and data loading on this machine."""

    works: Sequence[str] = argument(
        "WORK",
        "What to measure: pretrain, train, inference, loader. If none is given, all are "
        "measured, loader only if there is a data_dir.",
        default=(),
        many=True,
    )
    models: str = option("atto,tiny", "Model sizes, separated by commas.", metavar="SIZES")
    backends: str = option(
        "installed",
        "Inference engines, separated by commas: eager, compiled, aoti, onnxruntime, openvino. "
        "installed: all that are available here.",
        metavar="B",
    )
    seconds: float = option(10.0, "How long to measure each row.", metavar="S", unit="s", ge=0)
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(Options, verb="models"):
    """List the model sizes, or the public weights to start from."""

    pattern: str = argument(
        "PATTERN", "List only the sizes that match this pattern, such as '*tiny'.", default="*"
    )
    image_size: int = option(
        224, "Side of the image for which multiply-adds are counted.", metavar="PX", unit="px", ge=1
    )
    weights: bool = option(
        False, "List public weights that `init` takes, with licence, size and published accuracy."
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(Options, verb="recipes"):
    """List the recipes that come with the package."""

    copy: str = option(
        "", "Copy this recipe into the working folder so that you can change it.", metavar="NAME"
    )
    schema: bool = option(
        False, "Print the JSON schema of recipes, which editors use to complete and check them."
    )
    json: bool = _json()


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options, verb="demo"):
    """Pre-train, fine-tune and try a small model on images that come with the package."""

    quick: bool = option(
        False, "Finish in about a minute. The accuracy is then not meant to be good."
    )
    out: PathLike = option(
        "runs/demo", "Folder to write. An earlier demo in it is replaced.", metavar="FOLDER"
    )


VERBS: dict[str, type[Options]] = {
    options.command: options
    for options in (
        *(PretrainOptions, TrainOptions, ValidateOptions, CompareOptions, PredictOptions),
        *(EmbedOptions, ProbeOptions, AuditOptions, ExplainOptions),
        *(
            PackDataOptions,
            ExportOptions,
            ServeOptions,
            ConvertOptions,
            InspectOptions,
            InferOptions,
            ReconstructOptions,
        ),
        *(ReplayOptions, StatisticsOptions, PlanOptions, BenchmarkOptions, ModelsOptions),
        *(RecipesOptions, DemoOptions, PushOptions),
    )
}
"""The verbs in the order of `--help`."""
