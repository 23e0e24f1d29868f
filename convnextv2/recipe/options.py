"""The options of a verb, declared once.

The command line, the Python call, `--help`, the documentation and the checks all read the same
declaration. A verb has options of its own, which are the fields of a frozen dataclass, and borrows
knobs of the recipe. Both are read by their declared types, and all mistakes in both are reported
together.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from inspect import Parameter, Signature, cleandoc
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

from convnextv2.console import answering
from convnextv2.errors import RecipeError
from convnextv2.recipe.given import COMMAND, Mistake, did_you_mean, report
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.mindcv import keys
from convnextv2.recipe.read import read_recipe
from convnextv2.recipe.values import Option, bounds, convert, knob, show

PathLike = str | Path
_BOUNDS = ("ge", "gt", "le", "lt")
REQUIRED = dataclasses.MISSING


def option(default: Any, help: str, *, metavar: str = "V", unit: str = "", **limits: float) -> Any:
    """Declare an option of one verb.

    Args:
        default: The value if the option is not given.
        help: The help text, one or two sentences.
        metavar: The placeholder for its value in `--help`.
        unit: The unit of its numbers.
        **limits: Bounds of its numbers: ge, gt, le, lt.

    Returns:
        A field of a dataclass.
    """
    assert limits.keys() <= set(_BOUNDS)
    about = {"help": help, "metavar": metavar, "unit": unit, "limits": tuple(limits.items())}
    return dataclasses.field(default=default, metadata=about)


def argument(metavar: str, help: str, *, default: Any = REQUIRED, many: bool = False) -> Any:
    """Declare a positional argument of one verb.

    Args:
        metavar: The name of the argument in `--help`.
        help: The help text, one or two sentences.
        default: The value if the argument is not given. Without a default, it is required.
        many: Whether the argument takes several values.

    Returns:
        A field of a dataclass.
    """
    about = {"help": help, "metavar": metavar, "unit": "", "limits": (), "many": many}
    return dataclasses.field(default=default, metadata=about | {"is_positional": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options that a verb was given.

    Each verb has a subclass. The docstring of the subclass is the help text of the verb.

    Attributes:
        command: The name of the verb.
        knobs: The knobs of the recipe that the verb uses, with their defaults for this verb.
        takes_recipe: Whether the verb reads a recipe file.
        foreign: Whether knobs that the verb does not use are ignored, as MindCV's scripts expect.
        shown: The knobs that `--help` shows. If it is empty, `--help` shows all of them.
        knob_values: The knobs that were given, unconverted.
    """

    command: ClassVar[str] = ""
    knobs: ClassVar[Mapping[str, Any]] = {}
    takes_recipe: ClassVar[bool] = False
    foreign: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ()
    knob_values: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def __init_subclass__(
        cls,
        *,
        verb: str = "",
        knobs: Collection[str] = (),
        takes_recipe: bool = False,
        foreign: bool = False,
        shown: tuple[str, ...] = (),
        **defaults: Any,
    ) -> None:
        """Declare a verb.

        Args:
            verb: The name of the verb.
            knobs: The knobs of the recipe that the verb uses.
            takes_recipe: Whether the verb reads a recipe file.
            foreign: Whether other knobs are ignored.
            shown: The knobs that `--help` shows. If it is empty, `--help` shows all of them.
            **defaults: The defaults of knobs that differ from those of the recipe.
        """
        own = {
            name: Recipe.model_fields[name].default for name in Recipe.model_fields if name in knobs
        }
        assert set(shown) <= own.keys()
        assert set(knobs) == own.keys() and defaults.keys() <= own.keys(), (verb, knobs, defaults)
        cls.command, cls.knobs, cls.shown = verb, own | defaults, shown
        cls.takes_recipe, cls.foreign = takes_recipe, foreign

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Read options from text or from Python values.

        Args:
            values: Name -> value. A name may be a knob of the recipe, or MindCV's name for one.

        Raises:
            RecipeError: There are mistakes. The message has one line for each.
        """
        own: dict[str, Any] = {}
        others: dict[str, Any] = {}
        mistakes = []
        declared = {one.name: one for one in own_options(cls)}
        for spelled, value in values.items():
            name = spelled.replace("-", "_")
            if name in declared:
                try:
                    own[name] = declared[name].read(value)
                except (TypeError, ValueError):
                    mistakes.append(_wrong(declared[name], value))
            elif cls.takes_recipe or name in Recipe.model_fields or name in keys.NAMES:
                others[spelled] = value
            else:
                mistakes.append(_unknown(cls, name, value))
        mistakes += [
            f"{one.name}: is missing. {one.help}"
            for one in declared.values()
            if one.default is REQUIRED and one.name not in values
        ]
        if not cls.takes_recipe and not cls.knobs:
            mistakes += [_unknown(cls, name, value) for name, value in others.items()]
        elif cls.foreign:
            read_recipe(others, verb=cls.command, mistakes=mistakes)
        elif mistakes or not (cls.takes_recipe and (own.get("config") or cls._uses(others))):
            read_recipe(others, verb=cls.command, uses=cls.knobs, mistakes=mistakes)
        if mistakes:
            raise RecipeError(report([Mistake(COMMAND, line) for line in mistakes]))
        return cls(**own, knob_values=others)

    @classmethod
    def _uses(cls, names: Collection[str]) -> bool:
        ours = [keys.RENAMED.get(name.replace("-", "_"), name.replace("-", "_")) for name in names]
        return all(name in cls.knobs for name in ours if name in Recipe.model_fields)

    def changed(self, *names: str) -> list[str]:
        """Return which of these options differ from their defaults."""
        return [name for name in names if getattr(self, name) != getattr(type(self), name)]

    def recipe(
        self,
        config: PathLike | None = None,
        *,
        fallbacks: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        is_own: bool = False,
    ) -> tuple[Recipe, list[str]]:
        """Read the knobs into a recipe.

        Args:
            config: A recipe file, which the knobs override.
            fallbacks: Values that apply if the options do not set them.
            overrides: Values that override the options.
            is_own: Whether the file is the recipe of the run that is continued.

        Returns:
            The recipe, and lines to tell the user.

        Raises:
            RecipeError: There are mistakes. The message has one line for each.
        """
        theirs = Recipe.model_fields
        differing = {
            name: value for name, value in self.knobs.items() if value != theirs[name].default
        }
        values = {**differing, **(fallbacks or {}), **self.knob_values, **(overrides or {})}
        return read_recipe(values, config=config, verb=self.command, uses=self.knobs, is_own=is_own)


VerbOptions = TypeVar("VerbOptions", bound=Options)
Result = TypeVar("Result")


def takes(
    options: type[VerbOptions],
) -> Callable[[Callable[[VerbOptions], Result]], Callable[..., Result]]:
    """Turn a function of options into one that is called with arguments and keywords.

    Args:
        options: The options that the function takes.

    Returns:
        A decorator. The decorated function has a signature with every option and knob, and their
        defaults. Its docstring describes them. If the verb has an option `json` that is True, only
        what the function gives to `console.print_json` is printed to stdout.
    """

    def decorate(function: Callable[[VerbOptions], Result]) -> Callable[..., Result]:
        positional = [one.name for one in own_options(options) if one.is_positional]

        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Result:
            if len(arguments) > len(positional):
                most = len(positional)
                raise TypeError(
                    f"{options.command}() takes {most} positional arguments, {len(arguments)} given"
                )
            named = dict(zip(positional, arguments, strict=False))
            if twice := named.keys() & keywords.keys():
                raise TypeError(
                    f"{options.command}() got several values for {', '.join(sorted(twice))}"
                )
            given = options.read(named | keywords)
            with answering(getattr(given, "json", False)):
                return function(given)

        call.__signature__ = signature(options, Signature.empty)  # type: ignore[attr-defined]
        call.__doc__ = _documented(cleandoc(function.__doc__ or ""), _arguments(options))
        return call

    return decorate


@dataclasses.dataclass(frozen=True)
class OwnOption(Option):
    """An option that is not a knob of the recipe.

    Attributes:
        metavar: The placeholder for its value in `--help`.
        is_positional: Whether it is given by position.
        is_many: Whether it takes several values.
    """

    metavar: str = "V"
    is_positional: bool = False
    is_many: bool = False

    def read(self, value: Any) -> Any:
        """Convert a value to the declared type. Paths stay as they are given.

        An empty path is refused where a path is required. It often comes from an unset shell
        variable, and `Path("")` would be the working folder.

        Raises:
            TypeError, ValueError: The value is not of that type, or is out of bounds.
        """
        if self.is_many:
            items = [value] if isinstance(value, str | os.PathLike) else list(value)
            if not items and self.default is REQUIRED:
                raise ValueError
            if not self._takes_paths:
                return [convert(str, item) for item in items]
            for item in items:
                _check_path(item)
            return items
        if self.kind is str and value is not None:
            return convert(str, value)  # a class may be called "none"
        if not self._takes_paths:
            return super().read(value)
        if value is None and isinstance(None, self.kind):
            return None
        if value != "" or self.default not in ("", None):
            _check_path(value)
        return value

    @property
    def _takes_paths(self) -> bool:
        return self.kind in (PathLike, PathLike | None, Sequence[PathLike])

    @property
    def takes(self) -> str:
        """The values that the option takes, in words; see `Option.takes`."""
        if self.is_many:
            return "a list of paths" if self._takes_paths else "a list of words"
        return "a path" if self._takes_paths else super().takes


def _check_path(value: Any) -> None:
    """Raise TypeError or ValueError unless a value is a path that a file may have."""
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError


def own_options(options: type[Options]) -> tuple[OwnOption, ...]:
    """Return the options that are not knobs, with positional arguments first."""
    kinds = get_type_hints(options)
    found = [
        OwnOption(
            field.name,
            kinds[field.name],
            field.default,
            field.metadata["help"],
            field.metadata["unit"],
            bounds(field.metadata["limits"]),
            field.metadata["metavar"],
            field.metadata.get("is_positional", False),
            field.metadata.get("many", False),
        )
        for field in dataclasses.fields(options)
        if field.metadata
    ]
    return tuple(sorted(found, key=lambda one: not one.is_positional))


def borrowed_options(options: type[Options]) -> list[Option]:
    """Return the knobs that a verb uses, with the defaults of that verb."""
    return [
        dataclasses.replace(knob(name), default=default) for name, default in options.knobs.items()
    ]


def signature(options: type[Options], returns: Any) -> Signature:
    """Make the signature of a verb's function from its options and knobs."""
    parameters = []
    for one in own_options(options):
        kind = Parameter.POSITIONAL_OR_KEYWORD if one.is_positional else Parameter.KEYWORD_ONLY
        default = Parameter.empty if one.default is REQUIRED else one.default
        annotation = PathLike | one.kind if one.is_many else one.kind
        parameters.append(Parameter(one.name, kind, default=default, annotation=annotation))
    for each in borrowed_options(options):
        parameters.append(
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=each.kind)
        )
    return Signature(parameters, return_annotation=returns)


def _documented(doc: str, arguments: str) -> str:
    """Insert the section Args into a docstring, before the sections Returns and Raises."""
    text, returns, rest = doc.partition("\n\nReturns:\n")
    if not returns:
        text, raises, rest = doc.partition("\n\nRaises:\n")
        returns = raises
    return "\n\n".join(filter(None, (text, arguments))) + returns + rest


def _arguments(options: type[Options]) -> str:
    """Return the section Args of a docstring."""
    every = [*own_options(options), *borrowed_options(options)]
    return "\n".join(["Args:"] * bool(every) + [f"    {one.name}: {one.help}" for one in every])


def _near(value: Any, one: Option) -> str:
    if "one of" not in one.takes:
        return ""
    return did_you_mean(str(value), one.takes.removeprefix("one of ").split(", "))


def _wrong(one: Option, value: Any) -> str:
    """Say what an option expects in place of a value."""
    remedy = _near(value, one) or ("" if "one of" in one.takes else f" {one.help}")
    return f"{one.name} = {show(value)}: expected {one.takes}.{remedy}"


def _unknown(options: type[Options], name: str, value: Any) -> str:
    names = [*(one.name for one in own_options(options)), *options.knobs]
    remedy = did_you_mean(name, names) or f" See: convnextv2 {options.command} --help"
    return f"{name} = {show(value)}: {options.command} has no such option.{remedy}"
