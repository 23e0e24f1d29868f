"""The command line: `convnextv2 VERB ...`, made from the knobs and the verbs.

Values stay text here; each verb reads them with `read_recipe`, which the YAML file and the Python call go through as well, and to
which options that are no knob are handed too: MindCV's names, and mistakes, to be reported all together.
Importing this module, `--help` and `recipes` need no torch.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, NoReturn, get_args

from convnextv2 import __version__
from convnextv2.errors import GO_ON_LATER, ConvNeXtV2Error, Stopped
from convnextv2.recipe.knobs import INFERENCE, Recipe
from convnextv2.recipe.values import expected, show

Argument = tuple[str, dict[str, Any]]  # of ArgumentParser.add_argument

_RUN: Argument = ("run", {"metavar": "RUN", "help": "Run folder, checkpoint, weights file or artifact."})
_PATTERN: Argument = ("pattern", {"nargs": "?", "metavar": "PATTERN", "help": "Only these, such as '*tiny'."})
_SIDE: Argument = ("--image_size", {"type": int, "metavar": "PX", "help": "Side of the image for the multiply-adds. [224 px]"})
_IMAGES: Argument = ("images", {"metavar": "IMAGE", "nargs": "+", "help": "Image files, or folders of them."})
_SUPERVISED = ("run", "data", "augmentation", "model", "optimization")


class Verb(NamedTuple):
    """What one verb does, which arguments it has beside knobs, and which knobs (by name or group) its help shows."""

    help: str
    arguments: tuple[Argument, ...] = ()
    knobs: tuple[str, ...] = ()
    has_config: bool = False


VERBS: dict[str, Verb] = {
    "pretrain": Verb("Learn from images without labels (FCMAE).", knobs=(*_SUPERVISED, "pre-training"), has_config=True),
    "train": Verb("Train a classifier, from scratch or from --init.", knobs=_SUPERVISED, has_config=True),
    "validate": Verb(
        "Evaluate a run, or the weights in --init (MindCV: --ckpt_path), on labelled images.",
        (("run", _RUN[1] | {"nargs": "?"}),),
        knobs=(*INFERENCE, "out", "init", "data", "augmentation", "model"),
        has_config=True,
    ),
    "predict": Verb(
        "Classify images.",
        (
            _RUN,
            _IMAGES,
            ("--top_k", {"type": int, "metavar": "K", "help": "How many classes to show. [5]"}),
            ("--json", {"action": "store_true", "help": "One JSON object per image, for machines."}),
            ("--server", {"metavar": "URL", "help": "Ask this server; RUN is then a model's name there."}),
            ("--api_key", {"metavar": "KEY", "help": "Of the server. [CONVNEXTV2_API_KEY]"}),
        ),
        knobs=INFERENCE,
    ),
    "export": Verb(
        "Write a model as ONNX, PyTorch or OpenVINO artifact, with a certificate of how it compares.",
        (
            _RUN,
            ("--format", {"metavar": "F", "help": "onnx, torch, aoti or openvino. [onnx]"}),
            ("--precision", {"metavar": "P", "help": "float32, float16, bfloat16 or int8. [float32]"}),
            ("--outputs", {"metavar": "O", "help": "classifier, features or backbone. [classifier]"}),
            ("--input", {"metavar": "I", "help": "images (normalised) or pixels (uint8, probabilities come out). [images]"}),
            ("--dynamic_size", {"action": "store_true", "help": "Images of any multiple of the total stride."}),
            ("--calibrate", {"action": "store_true", "help": "Fit the temperature of the probabilities."}),
            ("--images", {"metavar": "N", "help": "Measure on at most so many validation images. [512]"}),
            ("--seconds", {"metavar": "S", "help": "To compare speeds, at least. [5]"}),
            ("--out", {"metavar": "FOLDER", "help": "Where to write. [artifacts/FORMAT-PRECISION in the run]"}),
            ("--layout", {"metavar": "L", "help": "folder, or a model repository: triton or ovms. [folder]"}),
            ("--name", {"metavar": "NAME", "help": "Of the model in a repository. [the run's]"}),
            ("--overwrite", {"action": "store_true", "help": "Replace an artifact that is there."}),
        ),
        knobs=("data_dir", "batch_size", "workers", "bad_images", "max_image_pixels"),
    ),
    "serve": Verb(
        "Serve models over HTTP, with a page to try them.",
        (
            (
                "models",
                {
                    "metavar": "MODEL",
                    "nargs": "+",
                    "help": "[NAME[@VERSION]=]PATH of a run, weights file or artifact, or OWNER/NAME of the Hub.",
                },
            ),
            ("--host", {"metavar": "H", "help": "Address to listen on; 0.0.0.0 for all. [127.0.0.1]"}),
            ("--port", {"metavar": "N", "help": "Port to listen on. [8000]"}),
            ("--api_key", {"metavar": "KEY", "help": "That clients must send. [CONVNEXTV2_API_KEY]"}),
            ("--api_key_file", {"metavar": "FILE", "help": "More keys, one on each line; SIGHUP reads it again."}),
            ("--cors_origins", {"metavar": "O", "help": "Origins whose pages may call, separated by commas. [none]"}),
            (
                "--access_log",
                {"metavar": "L", "help": "Requests to write down: failed, all, json (all as JSON) or off. [failed]"},
            ),
            ("--ssl_certfile", {"metavar": "FILE", "help": "Certificate for HTTPS, as PEM; SIGHUP reads it again."}),
            ("--ssl_keyfile", {"metavar": "FILE", "help": "Its key, not encrypted."}),
            ("--max_body_mb", {"metavar": "MB", "help": "Of a request's body. [32]"}),
            ("--max_bodies_mb", {"metavar": "MB", "help": "Of all bodies at once. [512]"}),
            ("--max_images", {"metavar": "N", "help": "Of a request. [64]"}),
            ("--max_queue", {"metavar": "N", "help": "Images that may wait; beyond that requests are refused. [256]"}),
            ("--max_batch", {"metavar": "N", "help": "Images that the model gets at once. [32]"}),
            ("--max_delay_ms", {"metavar": "MS", "help": "That an image waits for others. [2]"}),
            ("--deadline_s", {"metavar": "S", "help": "To answer a request. [10]"}),
            ("--read_timeout_s", {"metavar": "S", "help": "To receive a request. [20]"}),
            ("--drain_s", {"metavar": "S", "help": "To go on taking requests after SIGTERM. [1]"}),
        ),
        knobs=("device", "precision", "kernels", "max_image_pixels"),
    ),
    "convert": Verb(
        "Take weights of any known format to another library's.",
        (
            (
                "weights",
                _RUN[1] | {"metavar": "WEIGHTS", "help": "Run folder, weights file, Hub folder, or OWNER/NAME on the Hub."},
            ),
            (
                "--to",
                {"metavar": "FORMAT", "required": True, "help": "official, timm, transformers, mmpretrain, mindcv, convnextv2."},
            ),
            ("--out", {"metavar": "PATH", "required": True, "help": "File where it has a suffix, else a folder for the Hub."}),
            ("--ema", {"action": "store_true", "help": "The averaged weights of a training checkpoint."}),
            ("--allow_drift", {"action": "store_true", "help": "Write also what the target computes a little differently."}),
        ),
    ),
    "inspect": Verb("Say what a checkpoint of any known format is.", (("weights", _RUN[1] | {"metavar": "WEIGHTS"}),)),
    "infer": Verb(
        "MindCV's infer.py: the five best classes of one image, as a dictionary.",
        (
            ("--image_path", {"metavar": "FILE", "help": "The image."}),
            ("--ckpt_path", {"metavar": "CKPT", "help": "Weights of any known format, or a run folder."}),
            ("--model", {"metavar": "NAME", "help": "Only checked: the weights say what they are."}),
            ("--top_k", {"type": int, "metavar": "K", "help": "How many classes to show. [5]"}),
        ),
        knobs=INFERENCE,
    ),
    "reconstruct": Verb(
        "Show what a pre-trained run makes of masked images.",
        (
            _RUN,
            _IMAGES,
            ("--out", {"metavar": "FILE", "help": "PNG to write."}),
            ("--count", {"metavar": "N", "help": "At most so many images."}),
        ),
        knobs=("device", "bad_images", "max_image_pixels", "seed", "mask_ratio"),
    ),
    "replay": Verb(
        "Show a step that was not finite: its images, and the loss and gradient of each.",
        (_RUN, ("--step", {"metavar": "N", "help": "Which one. [the last that was kept]"})),
    ),
    "statistics": Verb(
        "Measure images, channel by channel: mean, std and value_range for a recipe.",
        (
            ("data", {"metavar": "DATA", "help": "Folder of images, or a table; labels are not needed."}),
            ("--in_channels", {"metavar": "N", "help": "Channels that the network takes. [3, or those of the first image]"}),
            ("--max_images", {"metavar": "N", "help": "Measure at most so many, a fixed random choice. [all]"}),
            ("--json", {"action": "store_true", "help": "One JSON object, for machines."}),
        ),
        knobs=(
            *("value_range", "train_split", "max_image_pixels", "workers", "seed"),
            *("columns", "images_dir", "image_suffix"),
        ),
    ),
    "plan": Verb(
        "Measure a recipe's first steps here: its time, memory and disk, before it is started.",
        (
            ("verb", {"nargs": "?", "metavar": "VERB", "help": "train or pretrain. [what the recipe is for]"}),
            ("--probe_seconds", {"metavar": "S", "help": "How long to measure. [30 s]"}),
        ),
        knobs=(*_SUPERVISED, "pre-training"),
        has_config=True,
    ),
    "benchmark": Verb(
        "Measure steps, inference and loader on this machine.",
        (
            ("works", {"nargs": "*", "metavar": "WORK", "help": "pretrain, train, inference, loader. [all]"}),
            ("--models", {"metavar": "SIZES", "help": "Sizes, separated by commas. [atto,tiny]"}),
            ("--backends", {"metavar": "B", "help": "Of inference: eager, compiled, aoti, onnxruntime, openvino. [installed]"}),
            ("--seconds", {"metavar": "S", "help": "For each row. [10 s]"}),
        ),
        knobs=("device", "precision", "kernels", "compile", "batch_size", "image_size", "mask_ratio", "data", "augmentation"),
    ),
    "models": Verb("List the sizes.", (_PATTERN, _SIDE)),
    "recipes": Verb("List the recipes that come with the package."),
    "demo": Verb(
        "The whole journey on real images that come with the package.",
        (
            ("--quick", {"action": "store_true", "help": "In a minute, for a test."}),
            ("--out", {"metavar": "FOLDER", "help": "Where to write."}),
        ),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. argv: without the program's name; None: sys.argv.

    Returns the exit code: 0, 2 (the user's mistake), 75 (a run was stopped as asked, or lost a rank, and may go on later), 130
    (interrupted) or 141 (nobody reads the output).
    """
    for stream in (sys.stdout, sys.stderr):  # names of files may be anything, terminals ASCII only
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        name, arguments = parse(sys.argv[1:] if argv is None else argv)
        if name:
            load_verb(name)(**arguments)
        sys.stdout.flush()
    except ConvNeXtV2Error as error:
        _print_error(error, str(error))
        return error.exit_code
    except Stopped as stopped:
        print(f"convnextv2: {stopped}; the same command with --resume goes on", file=sys.stderr)
        return GO_ON_LATER
    except KeyboardInterrupt:
        print("convnextv2: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has left; Python must not try to flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as done:  # argparse, after --help or --version
        return int(done.code or 0)
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        name = error.filename2 or error.filename
        _print_error(error, f"{name or 'a file'}: {error.strerror}. {_OF_THE_SYSTEM[error.errno]}")
        return 2
    return 0


_SPACE = "Free some space, then start the same command again (a run: with --resume)."
_PATH = "Choose another path."
_OF_THE_SYSTEM = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: "Choose a folder that can be written.",
    errno.EACCES: "Choose a path that you may read and write, or change its permissions.",
    errno.EPERM: "Choose a path that you may read and write, or change its permissions.",
    errno.ENOTDIR: _PATH,
    errno.EISDIR: _PATH,
    errno.ENAMETOOLONG: _PATH,
    errno.ELOOP: _PATH,
    errno.EIO: "The disk or the file server fails; look at it, then start the same command again.",
    errno.ESTALE: "The file server was away; start the same command again (a run: with --resume).",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
}
"""What the system can refuse, and the remedy. Any other error of it keeps its traceback."""


def _print_error(error: BaseException, text: str) -> None:
    print(" ".join([f"convnextv2: error: {text}", *getattr(error, "__notes__", ())]), file=sys.stderr)


def load_verb(name: str) -> Callable[..., object]:
    """The function behind a verb; imports what it needs only now."""
    function: Callable[..., object] = getattr(import_module(f"convnextv2.verbs.{name}"), name)
    return function


def parse(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Verb and its arguments; ('', {}) after printing help where no verb is given. ConvNeXtV2Error if that is not possible."""
    if not argv or argv[0].startswith("-"):
        parser = _program()
        parser.parse_args(argv)
        parser.print_help()
        return "", {}
    name, *rest = argv
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"Choose one of {', '.join(VERBS)}."
        raise ConvNeXtV2Error(f"there is no verb '{name}'. {remedy}")
    parser = _parser(name)
    known, unknown = _separate(rest, {option for action in parser._actions for option in action.option_strings})
    arguments = vars(parser.parse_args(known))
    if unknown and not VERBS[name].knobs:
        raise ConvNeXtV2Error(f"{name} has no option --{next(iter(unknown))}. See: convnextv2 {name} --help")
    return name, arguments | unknown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConvNeXtV2Error(f"{message}. See: {self.prog} --help")


def _program() -> _Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    parser = _Parser(
        prog="convnextv2",
        usage="convnextv2 VERB [--config RECIPE] [--knob value ...]",
        description="ConvNeXt V2 from a folder of images to a trained model.",
        epilog=f"verbs:\n{verbs}\n\nconvnextv2 VERB --help lists its knobs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convnextv2 {__version__}")
    return parser


def _parser(name: str) -> _Parser:
    """The parser of one verb. What is not given is left out of its result, so that the verb's own defaults hold."""
    verb = VERBS[name]
    positionals = " ".join(_usage(options) for flag, options in verb.arguments if not flag.startswith("-"))
    parser = _Parser(
        prog=f"convnextv2 {name}",
        usage=f"convnextv2 {name} {positionals}{' ' * bool(positionals)}{'[-c RECIPE] ' * verb.has_config}[--option value ...]",
        description=verb.help,
        epilog="Each knob may also be a line of the recipe. MindCV's names for them are accepted." if verb.knobs else None,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    for flag, options in verb.arguments:
        default: dict[str, Any] = {"default": argparse.SUPPRESS}  # argument_default does not reach store_true and positionals
        parser.add_argument(flag, **default | options)
    if verb.has_config:
        parser.add_argument("-c", "--config", metavar="RECIPE", help="YAML file, or a name that `convnextv2 recipes` lists.")
        parser.add_argument("--defaults", metavar="WHOSE", help="mindcv or convnextv2. [mindcv, if the recipe has MindCV's keys]")
    own = {flag.removeprefix("--") for flag, _ in verb.arguments}
    groups: dict[str, Any] = {}
    for knob, field in Recipe.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        title = str(extra["group"])
        if knob in own or not {knob, title} & set(verb.knobs):
            continue
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        takes = "" if field.annotation is str else f" {expected(knob)[0].upper()}{expected(knob)[1:]}."
        text = f"{field.description}{takes} [{_written(field.default)}{' ' * bool(extra['unit'])}{extra['unit']}]"
        is_switch = bool in (field.annotation, *get_args(field.annotation))  # --ema is --ema True
        bare: dict[str, Any] = {"nargs": "?", "const": "True"} if is_switch else {}
        groups[title].add_argument(f"--{knob}", metavar="V", help=text.replace("%", "%%"), **bare)
    return parser


def _usage(options: dict[str, Any]) -> str:
    text = str(options["metavar"])
    return {"?": f"[{text}]", "*": f"[{text} ...]", "+": f"{text} [{text} ...]"}.get(options.get("nargs", ""), text)


def _written(default: Any) -> str:
    """A default as one would type it."""
    if isinstance(default, tuple):
        return ",".join(f"{number:.4g}" for number in default)
    return "empty" if default in (None, "") else show(default)


def _separate(argv: Sequence[str], options: set[str]) -> tuple[list[str], dict[str, str]]:
    """(arguments for argparse with its options spelled with _, values of all other options by key).

    argparse cannot do this: it would take the value of an option that it does not know for a positional argument.
    """
    known: list[str] = []
    unknown: dict[str, str] = {}
    tokens = deque(argv)
    while tokens:
        token = tokens.popleft()
        if token == "--":
            known += ["--", *tokens]
            break
        option, equals, value = token.partition("=")
        if not re.match(r"--\w", token):
            known.append(token)
            continue
        option = option.replace("-", "_").replace("__", "--", 1)
        has_number = bool(tokens and re.match(r"-[\d.]", tokens[0]))  # -1e-3 is a value, for argparse an option
        if option in options:
            known.append(option + equals + value if equals or not has_number else f"{option}={tokens.popleft()}")
        elif equals:
            unknown[option[2:]] = value
        else:
            unknown[option[2:]] = tokens.popleft() if tokens and (has_number or not tokens[0].startswith("-")) else "True"
    return known, unknown
