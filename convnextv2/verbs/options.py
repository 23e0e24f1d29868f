"""What each verb takes: every option with its type, default and help, once.

This module needs no torch, so that `--help` is quick. The functions are beside it, one file each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convnextv2.recipe.knobs import Recipe, group_of, knobs_of
from convnextv2.recipe.options import REQUIRED, Options, PathLike, argument, option
from convnextv2.server.limits import Limits

INFERENCE = (
    *("device", "precision", "kernels", "batch_size", "workers", "bad_images"),
    "max_image_pixels",
)
"""Knobs of the verbs that apply a trained model to images."""

_IMAGES = (
    *("data_dir", "dataset", "dataset_download", "train_split", "val_split", "val_fraction"),
    *("class_order", "columns", "images_dir", "image_suffix", "seed"),
)
"""Knobs that say which labelled images are measured."""

_PREPARED = (
    *("image_size", "in_channels", "value_range", "interpolation", "antialias", "eval_preset"),
    *("crop_pct", "mean", "std"),
)
"""Knobs that say how they are prepared."""

_RANKS = ("distribute", "rank_timeout_s", "data_wait_s")


_SHOWN = (
    *("data_dir", "out", "resume", "init", "model", "epochs", "batch_size", "lr", "image_size"),
    *("device", "precision", "workers", "seed"),
)
"""Knobs of train and pretrain that most people need."""

RECIPE = "YAML file, or a name that `convnextv2 recipes` lists."
_RUN = "Run folder, checkpoint, weights file or artifact."


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(
    Options,
    verb="pretrain",
    knobs=knobs_of("pretrain"),
    takes_recipe=True,
    shown=(*_SHOWN, "mask_ratio"),
):
    """Learn from images without labels (FCMAE)."""

    config: PathLike | None = argument("RECIPE", RECIPE, default=None)


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


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(
    Options,
    verb="validate",
    knobs=(
        *(*INFERENCE, *_IMAGES, *_PREPARED, *_RANKS),
        *("val_precision", "init", "ema", "model", "depths", "dims", "num_classes", "mindcv_files"),
    ),
    takes_recipe=True,
):
    """Evaluate a run, or the weights in --init (MindCV: --ckpt_path), on labelled images."""

    run: PathLike | None = argument("RUN", _RUN, default=None)
    config: PathLike | None = option(None, RECIPE, metavar="RECIPE")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options, verb="predict", knobs=INFERENCE):
    """Classify images."""

    run: PathLike = argument("RUN", _RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    top_k: int = option(5, "How many classes to show.", metavar="K", ge=1)
    json: bool = option(False, "Print one JSON object for each image, for machines.")
    server: str = option(
        "", "Ask the server at this address; RUN is then a model's name there.", metavar="URL"
    )
    api_key: str = option(
        "", "Key of the server. Empty: the environment's CONVNEXTV2_API_KEY.", metavar="KEY"
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(
    Options,
    verb="export",
    knobs=(*_IMAGES, "batch_size", "workers", "bad_images", "max_image_pixels"),
    batch_size=16,
):
    """Write a model as ONNX, PyTorch or OpenVINO artifact, with a certificate of how it compares."""

    run: PathLike = argument("RUN", _RUN)
    format: Literal["onnx", "torch", "aoti", "openvino"] = option(
        "onnx", "Format of the artifact.", metavar="F"
    )
    precision: Literal["float32", "float16", "bfloat16", "int8"] = option(
        "float32",
        "Arithmetic of the artifact; GRN and layer norm keep float32 statistics in all of them.",
        metavar="P",
    )
    outputs: Literal["classifier", "features", "backbone"] = option(
        "classifier",
        "What it returns: logits, embedding and explanation map (classifier), the embedding "
        "(features), or the maps of the four stages (backbone).",
        metavar="O",
    )
    input: Literal["images", "pixels"] = option(
        "images",
        "What it takes: normalised images; or uint8 pixels, and then it returns probabilities.",
        metavar="I",
    )
    dynamic_size: bool = option(False, "Take images of any multiple of the total stride.")
    calibrate: bool = option(
        False, "Fit the temperature of the probabilities to validation images."
    )
    images: int = option(
        512, "Measure on at most so many validation images, evenly spread.", metavar="N", ge=1
    )
    seconds: float = option(
        5.0, "Compare speeds for at least so long.", metavar="S", unit="s", ge=0
    )
    out: PathLike = option(
        "", "Folder to write. Empty: artifacts/FORMAT-PRECISION in the run.", metavar="FOLDER"
    )
    layout: Literal["folder", "triton", "ovms"] = option(
        "folder",
        "A folder, or a model repository for the servers Triton or OpenVINO Model Server in `out`.",
        metavar="L",
    )
    name: str = option("", "Name of the model in a repository. Empty: the run's.", metavar="NAME")
    overwrite: bool = option(False, "Replace an artifact that is there.")


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Limits, Options, verb="serve", knobs=("device", "precision", "kernels")):
    """Serve models over HTTP, with a page to try them."""

    models: Sequence[PathLike] = argument(
        "MODEL",
        "[NAME[@VERSION]=]PATH of a run, weights file or artifact, or OWNER/NAME of the Hub.",
        many=True,
    )
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all.", metavar="H")
    port: int = option(
        8000, "Port to listen on; 0 for any that is free.", metavar="N", ge=0, lt=65536
    )
    api_key: str = option(
        "",
        "Key that clients must send. Empty: the environment's CONVNEXTV2_API_KEY.",
        metavar="KEY",
    )
    api_key_file: str = option(
        "", "File with more keys, one on each line; SIGHUP reads it again.", metavar="FILE"
    )
    cors_origins: str = option(
        "", "Origins whose pages may call the server, separated by commas.", metavar="O"
    )
    access_log: Literal["failed", "all", "json", "off"] = option(
        "failed",
        "Requests to write down: failed ones, all, all as JSON (json), or none (off).",
        metavar="L",
    )
    ssl_certfile: str = option(
        "", "Certificate for HTTPS, as PEM; SIGHUP reads it again.", metavar="FILE"
    )
    ssl_keyfile: str = option("", "Key of the certificate, not encrypted.", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options, verb="convert"):
    """Take weights of any known format to another library's."""

    weights: PathLike = argument(
        "WEIGHTS", "Run folder, weights file, Hub folder, or OWNER/NAME on the Hub."
    )
    to: Literal["official", "timm", "transformers", "mmpretrain", "mindcv", "convnextv2"] = option(
        REQUIRED, "Format to write.", metavar="FORMAT"
    )
    out: PathLike = option(
        REQUIRED, "File where it has a suffix, else a folder for the Hub.", metavar="PATH"
    )
    ema: bool = option(False, "Take the averaged weights of a training checkpoint.")
    allow_drift: bool = option(False, "Write also what the target computes a little differently.")


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options, verb="inspect"):
    """Say what a checkpoint of any known format is."""

    weights: PathLike = argument("WEIGHTS", _RUN)


@dataclass(frozen=True, kw_only=True)
class InferOptions(Options, verb="infer", knobs=INFERENCE, foreign=True):
    """MindCV's infer.py: the five best classes of one image, as a dictionary."""

    image_path: PathLike = option("", "The image.", metavar="FILE")
    ckpt_path: PathLike = option(
        "", "Weights of any known format, or a run folder.", metavar="CKPT"
    )
    model: str = option("", "Only checked: the weights say what they are.", metavar="NAME")
    top_k: int = option(5, "How many classes to show.", metavar="K", ge=1)


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(
    Options,
    verb="reconstruct",
    knobs=("device", "bad_images", "max_image_pixels", "seed", "mask_ratio"),
):
    """Show what a pre-trained run makes of masked images."""

    run: PathLike = argument("RUN", _RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    out: PathLike = option("reconstructions.png", "Picture to write.", metavar="FILE")
    count: int = option(16, "Show at most so many images, evenly spread.", metavar="N", ge=1)


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(Options, verb="replay"):
    """Show a step that was not finite: its images, and the loss and gradient of each."""

    run: PathLike = argument("RUN", "Run folder.")
    step: int | None = option(None, "Which one. Empty: the last that was kept.", metavar="N", ge=1)


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

    data: PathLike = argument("DATA", "Folder of images, or a table; labels are not needed.")
    in_channels: int | None = option(
        None,
        "Channels that the network takes. Empty: 3, or those of the first image.",
        metavar="N",
        ge=1,
    )
    max_images: int | None = option(
        None, "Measure at most so many, a fixed random choice. Empty: all.", metavar="N", ge=1
    )
    json: bool = option(False, "Print one JSON object, for machines.")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options, verb="plan", knobs=tuple(Recipe.model_fields), takes_recipe=True):
    """Measure a recipe's first steps here: its time, memory and disk, before it is started."""

    verb: Literal["", "train", "pretrain"] = argument(
        "VERB", "train or pretrain. Empty: what the recipe is for.", default=""
    )
    config: PathLike | None = argument("RECIPE", RECIPE, default=None)
    probe_seconds: float = option(30.0, "How long to measure.", metavar="S", unit="s", gt=0)


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
    """Measure steps, inference and loader on this machine."""

    works: Sequence[str] = argument(
        "WORK",
        "pretrain, train, inference, loader. Without any: all, loader only where there is a data_dir.",
        default=(),
        many=True,
    )
    models: str = option("atto,tiny", "Sizes, separated by commas.", metavar="SIZES")
    backends: str = option(
        "installed",
        "Engines of inference, separated by commas: eager, compiled, aoti, onnxruntime, openvino; "
        "or installed, for all that are here.",
        metavar="B",
    )
    seconds: float = option(10.0, "How long to measure each row.", metavar="S", unit="s", ge=0)


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(Options, verb="models"):
    """List the sizes."""

    pattern: str = argument("PATTERN", "Only these, such as '*tiny'.", default="*")
    image_size: int = option(
        224, "Side of the image for the multiply-adds.", metavar="PX", unit="px", ge=1
    )


@dataclass(frozen=True, kw_only=True)
class RecipesOptions(Options, verb="recipes"):
    """List the recipes that come with the package."""

    copy: str = option(
        "", "Copy this recipe into the working folder, to be changed.", metavar="NAME"
    )
    schema: bool = option(
        False, "Print the JSON schema of recipes, by which editors complete them."
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options, verb="demo"):
    """The whole journey on real images that come with the package."""

    quick: bool = option(False, "Be done in about a minute; the accuracy is not meant to be good.")
    out: PathLike = option(
        "runs/demo", "Folder to write; an earlier demo in it is replaced.", metavar="FOLDER"
    )


VERBS: dict[str, type[Options]] = {
    options.command: options
    for options in (
        *(PretrainOptions, TrainOptions, ValidateOptions, PredictOptions, ExportOptions),
        *(ServeOptions, ConvertOptions, InspectOptions, InferOptions, ReconstructOptions),
        *(ReplayOptions, StatisticsOptions, PlanOptions, BenchmarkOptions, ModelsOptions),
        *(RecipesOptions, DemoOptions),
    )
}
"""The verbs in the order of `--help`."""
