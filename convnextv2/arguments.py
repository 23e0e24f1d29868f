"""Parses the command line. The parsers follow from the declarations in `verbs.options`.

Values remain text here. Each verb reads them as it reads those of a Python call, and reports all
mistakes together. Importing this module does not need torch.
"""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, get_args

from convnextv2 import __version__
from convnextv2.console import print_to_stderr
from convnextv2.errors import ConvNeXtV2Error, MissingPackageError
from convnextv2.recipe.knobs import group_of_knob
from convnextv2.recipe.options import (
    REQUIRED,
    Options,
    OwnOption,
    PathLike,
    borrowed_options,
    own_options,
)
from convnextv2.recipe.values import Option, show
from convnextv2.text import plain
from convnextv2.verbs.options import VERBS
from convnextv2.verbs.options.shared import RECIPE


def parse(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Split a command line into the verb and its arguments.

    Returns:
        The verb and its arguments by name, or ('', {}) if there is no verb. In that case, the help
        is printed.

    Raises:
        ConvNeXtV2Error: There is no such verb, or its arguments cannot be read.
    """
    if not argv or argv[0].startswith("-"):
        parser = _program()
        shell = parser.parse_args(argv).completion
        if shell:
            print(completion(shell))
        else:
            parser.print_help()
        return "", {}
    name, *rest = argv
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"Choose one of {', '.join(VERBS)}."
        raise ConvNeXtV2Error(f"there is no verb '{name}'. {remedy}")
    parser = build_parser(VERBS[name], shows_all="--help-all" in rest or "--help_all" in rest)
    known, unknown = _separate(
        rest, {option for action in parser._actions for option in action.option_strings}
    )
    # Intermixed, since images that need not be given may come after options: RUN --out PAGE IMAGE.
    values = vars(parser.parse_intermixed_args(known))
    _tell_repeated({**parser.given, **unknown})
    last = {option: each[-1] for option, each in unknown.items()}
    return name, {option: _unmarked(value) for option, value in values.items()} | last


def _tell_repeated(given: Mapping[str, Sequence[str]]) -> None:
    """Print which options are given several values. The last one counts, as in most programs."""
    for name, values in given.items():
        if len(set(values)) > 1:
            times = "twice" if len(values) == 2 else f"{len(values)} times"
            line = f"--{name} is given {times}; the last value counts, which is {show(values[-1])}"
            print_to_stderr(plain(f"convnextv2: {line}"))


class _Parser(argparse.ArgumentParser):
    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.given: dict[str, list[str]] = {}

    def error(self, message: str) -> NoReturn:
        message, remedy = message.replace(_NAME, ""), ""
        if found := re.fullmatch(r"argument (-\S+): expected one argument", message):
            remedy = f"A value that begins with - is written {found[1]}=VALUE. "
        elif found := re.match(r"argument (-\S+): ignored explicit argument", message):
            message = f"{found[1]} takes no value"
        elif re.fullmatch(r"unrecognized arguments:( [-+\d.,)\]][-+\d.,e)\]]*)+", message):
            remedy = "The values of a list are joined by commas without spaces, as in 3,3,9,3. "
        elif message.startswith("unrecognized") and "--config" in self._option_string_actions:
            remedy = "A recipe is given with --config RECIPE. "
        raise ConvNeXtV2Error(f"{message}. {remedy}See: {self.prog} --help")


class _Last(argparse.Action):
    """Stores a value, and remembers it in the parser beside those that it replaces."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, _Parser)
        parser.given.setdefault(self.dest, []).append(values)
        setattr(namespace, self.dest, values)


_NAME = "\0"
"""Marks the arguments after "--", which argparse does not always keep apart from options. A command
line cannot contain this character."""


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return value.removeprefix(_NAME)


def _program() -> _Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.__doc__}" for name, verb in VERBS.items())
    parser = _Parser(
        prog="convnextv2",
        usage="convnextv2 VERB [--config RECIPE] [--option value ...]",
        description="ConvNeXt V2 from a folder of images to a trained model.",
        epilog=f"verbs:\n{verbs}\n\nconvnextv2 VERB --help lists its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "Print a script that lets a shell (bash, zsh, fish or tcsh) complete verbs and options."
    parser.add_argument("--completion", metavar="SHELL", help=what)
    parser.add_argument("--version", action="version", version=f"convnextv2 {__version__}")
    return parser


def completion(shell: str) -> str:
    """Return a script that lets a shell complete verbs and options.

    Args:
        shell: bash, zsh, fish or tcsh.

    Raises:
        MissingPackageError: shtab is not installed.
        ConvNeXtV2Error: There is no such shell.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise MissingPackageError("shtab", "--completion") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise ConvNeXtV2Error(f"completion = {shell}: expected one of {known}.")
    parser = argparse.ArgumentParser(prog="convnextv2")
    verbs = parser.add_subparsers()
    for name, verb in VERBS.items():
        own = build_parser(verb, shows_all=True)
        for action in own._actions:
            if action.metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        verbs.add_parser(name, help=verb.__doc__, parents=[own], add_help=False)
    return str(shtab.complete(parser, shell))


_PATHS = ("RUN", "RECIPE", "IMAGE", "MODEL", "WEIGHTS", "DATA", "FILE", "FOLDER", "PATH", "CKPT")
"""Metavars of options whose values are files or folders. Shells complete these as paths."""


def build_parser(verb: type[Options], *, shows_all: bool = False) -> _Parser:
    """Build the parser of a verb.

    Values remain text. An option that is not given is missing from the result.

    Args:
        verb: The declarations of the verb's options.
        shows_all: Whether the help lists all knobs, not only those that the verb declares as usual.
    """
    own = [one for one in own_options(verb) if one.name != "config"]
    places = " ".join(_usage(one) for one in own if one.is_positional)
    recipe = "[-c RECIPE] " * verb.takes_recipe
    ending = "Each knob may also be a line of the recipe. " * verb.takes_recipe
    ending += "MindCV's names of knobs are accepted. " * bool(verb.knobs)
    hidden = len(verb.knobs) - len(verb.shown)
    if verb.shown and not shows_all:
        ending += f"There are {hidden} more knobs: convnextv2 {verb.command} --help-all"
    parser = _Parser(
        prog=f"convnextv2 {verb.command}",
        usage=f"convnextv2 {verb.command} {places}{' ' * bool(places)}{recipe}[--option value ...]",
        description=verb.__doc__,
        epilog=ending or None,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    for one in own:
        if one.is_positional:
            count: dict[str, Any] = {"nargs": _count(one)} if _count(one) else {}
            # argument_default does not reach positionals.
            parser.add_argument(
                one.name, metavar=one.metavar, help=_help(one), default=argparse.SUPPRESS, **count
            )
        else:
            _add(parser, one, one.metavar)
    if verb.shown:
        parser.add_argument("--help_all", action="help", help="Show all knobs and exit.")
    if verb.takes_recipe:
        parser.add_argument("-c", "--config", metavar="RECIPE", help=RECIPE, action=_Last)
        whose = (
            "Whose defaults apply: mindcv or convnextv2. [mindcv, if the recipe has MindCV's keys]"
        )
        parser.add_argument("--defaults", metavar="WHOSE", help=whose, action=_Last)
    groups: dict[str, Any] = {}
    taken = {one.name for one in own}
    for each in borrowed_options(verb):
        if each.name in taken:
            continue
        title = group_of_knob(each.name)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(
            groups[title],
            each,
            "V",
            hides=bool(verb.shown) and not shows_all and each.name not in verb.shown,
        )
    return parser


def _add(parser: Any, one: Option, metavar: str, *, hides: bool = False) -> None:
    own = isinstance(one, OwnOption)
    if own and one.kind is bool and not one.default:  # what follows may be an image
        parser.add_argument(
            f"--{one.name}",
            action="store_const",
            const="True",
            default=argparse.SUPPRESS,
            help=one.help,
        )
        return
    is_switch = bool in (one.kind, *get_args(one.kind)) and not own  # --ema is --ema True
    bare: dict[str, Any] = {"nargs": "?", "const": "True"} if is_switch else {}
    text = argparse.SUPPRESS if hides else _help(one)
    parser.add_argument(f"--{one.name}", metavar=metavar, help=text, action=_Last, **bare)


def _help(one: Option) -> str:
    """Write the help of an option: its text, the values it takes, and its default with the unit."""
    text = one.help
    if one.kind not in (str, PathLike, PathLike | None) and not (
        isinstance(one, OwnOption) and one.is_many
    ):
        text += f" {one.takes[0].upper()}{one.takes[1:]}."
    if one.default is not REQUIRED and not (isinstance(one, OwnOption) and one.is_many):
        default = _written(one.default)
        text += f" [{default} {one.unit}]" if one.unit and default != "empty" else f" [{default}]"
    return text.replace("%", "%%")


def _count(one: OwnOption) -> str:
    """Return how many values a positional argument takes, in argparse's notation."""
    if one.is_many:
        return "+" if one.default is REQUIRED else "*"
    return "" if one.default is REQUIRED else "?"


def _usage(one: OwnOption) -> str:
    text = one.metavar
    return {"?": f"[{text}]", "*": f"[{text} ...]", "+": f"{text} [{text} ...]"}.get(
        _count(one), text
    )


def _written(default: Any) -> str:
    """Write a default as one would type it."""
    if default in (None, "", ()):
        return "empty"
    if isinstance(default, tuple):
        return ",".join(f"{number:.4g}" for number in default)
    return show(default)


def _separate(argv: Sequence[str], options: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Separate the options that argparse knows from all others.

    argparse cannot do this itself: it would take the value of an unknown option for a positional
    argument.

    Args:
        argv: The command line after the verb.
        options: The options that argparse knows, spelled with _.

    Returns:
        The arguments for argparse, with options spelled with _, and the values of each other option
        by name, in their order.

    Raises:
        ConvNeXtV2Error: An argument looks like an option but is none.
    """
    known: list[str] = []
    unknown: dict[str, list[str]] = {}
    tokens = deque(argv)
    while tokens:
        token = tokens.popleft()
        if token == "--":
            known += [_NAME + name for name in tokens]
            break
        option, equals, value = token.partition("=")
        if not re.match(r"--\w", token):
            if re.match(r"-[^\d.]", token) and token[:2] not in options:
                raise ConvNeXtV2Error(
                    f"{token}: there is no such option. A value that begins with - is written "
                    f"--OPTION={token}, and a name that begins with - comes after --."
                )
            known.append(token)
            continue
        option = option.replace("-", "_").replace("__", "--", 1)
        # -1e-3 is a value, which argparse would take for an option.
        has_number = bool(tokens and re.match(r"-[\d.]", tokens[0]))
        if option in options:
            known.append(
                option + equals + value
                if equals or not has_number
                else f"{option}={tokens.popleft()}"
            )
            continue
        if not equals:
            follows = tokens and (has_number or not tokens[0].startswith("-"))
            value = tokens.popleft() if follows else "True"
        unknown.setdefault(option[2:], []).append(value)
    return known, unknown
