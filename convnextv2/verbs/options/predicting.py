"""The options of verbs that apply a model to new images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convnextv2.recipe.options import Options, PathLike, argument, option
from convnextv2.recipe.prior import Prior
from convnextv2.server.limits import Limits
from convnextv2.verbs.options.shared import INFERENCE, PRIOR, RUN, json_option


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options, verb="predict", knobs=INFERENCE):
    """Classify images or their pixels, or detect the objects in them."""

    run: PathLike = argument("RUN", RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    top_k: int = option(
        5,
        "For classifiers with one class per image: number of classes to show.",
        metavar="K",
        ge=1,
        le=1_000_000,
    )
    threshold: float = option(
        0.5,
        "For detectors: lowest score of the objects that are reported and drawn.",
        metavar="T",
        ge=0,
        le=1,
    )
    prior: Prior = option("trained", PRIOR, metavar="P", ge=0, le=1_000)
    out: PathLike = option(
        "",
        "Also write the predictions to this file, whose extension decides the format: .csv, .json, "
        "or .jsonl for one JSON object per line. For segmentors and detectors, it is a folder for "
        "pictures and data.",
        metavar="FILE",
    )
    json: bool = option(False, "Print one JSON object for each image, for use by other programs.")
    server: str = option(
        "",
        "Address of a server that predicts instead of this machine. RUN is then the name of a "
        "model on that server.",
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

    run: PathLike = argument("RUN", RUN)
    images: Sequence[PathLike] = argument(
        "IMAGE", "Image files, or folders of them, or one table that lists images.", many=True
    )
    out: PathLike = option(
        "embeddings.npy",
        "File to write, whose extension decides the format: .npy (with the paths in a CSV file "
        "beside it), .csv or .parquet.",
        metavar="FILE",
    )
    normalize: Literal["none", "l2"] = option(
        "none", "Whether to divide each embedding by its Euclidean norm (l2).", metavar="N"
    )
    labels: Literal["none", "folder", "table"] = option(
        "none",
        "Source of the labels: none, the name of the folder of each image, or the table.",
        metavar="L",
    )
    json: bool = json_option()


@dataclass(frozen=True, kw_only=True)
class InferOptions(Options, verb="infer", knobs=INFERENCE, foreign=True):
    """Print the most probable classes of one image as a dictionary, as MindCV's infer.py does."""

    image_path: PathLike = option("", "Image to classify.", metavar="FILE")
    ckpt_path: PathLike = option(
        "", "Weights in any known format, or a run folder.", metavar="CKPT"
    )
    model: str = option(
        "", "Name of the model. It is only checked against the weights.", metavar="NAME"
    )
    top_k: int = option(5, "Number of classes to show.", metavar="K", ge=1, le=1_000_000)


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(
    Options,
    verb="reconstruct",
    knobs=("device", "bad_images", "max_image_pixels", "seed", "mask_ratio"),
):
    """Show how a pre-trained run reconstructs masked images."""

    run: PathLike = argument("RUN", RUN)
    images: Sequence[PathLike] = argument("IMAGE", "Image files, or folders of them.", many=True)
    out: PathLike = option("reconstructions.png", "Image file to write.", metavar="FILE")
    count: int = option(
        16,
        "Show at most this many images, evenly spaced in their order.",
        metavar="N",
        ge=1,
        le=1_000_000,
    )


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
        "File with further API keys, one per line. SIGHUP makes the server read it again.",
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
    ssl_keyfile: str = option("", "Unencrypted private key of the certificate.", metavar="FILE")
