"""The recipe: all knobs, each declared once in the file of its group in `recipe.groups`.

A declaration has the name, type, default, unit and help of a knob, and MindCV's name for it. A YAML
file, the command line and a Python call all produce one `Recipe`, so all three pass the same checks
(`recipe.read`). A value records what the user asked for. Its consequences (the device, the
precision, the number of workers) are decided in the module that needs them: `tasks.masked.task` for
the knobs of pre-training, `training.schedule` for the learning rate, `data.build_transforms` for
images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from convnextv2.errors import RecipeError
from convnextv2.recipe.groups.augmentation import AugmentationKnobs
from convnextv2.recipe.groups.data import DataKnobs
from convnextv2.recipe.groups.dense import DenseKnobs
from convnextv2.recipe.groups.distillation import DistillationKnobs
from convnextv2.recipe.groups.model import ModelKnobs
from convnextv2.recipe.groups.optimization import OptimizationKnobs
from convnextv2.recipe.groups.pretraining import PretrainingKnobs
from convnextv2.recipe.groups.run import RunKnobs
from convnextv2.recipe.idle import IDLE_RULES, IdleRule
from convnextv2.recipe.pairs import pair_mistakes


class PairError(ValueError):
    """Knobs contradict each other.

    Args:
        mistakes: One line for each contradiction.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


# Pydantic lists the fields from the last base to the first, and so do files and `--help`.
class Recipe(
    PretrainingKnobs,
    DenseKnobs,
    DistillationKnobs,
    OptimizationKnobs,
    ModelKnobs,
    AugmentationKnobs,
    DataKnobs,
    RunKnobs,
):
    """A complete description of one run.

    A recipe is frozen. To change one, make a copy: `recipe.model_copy(update=...)`.
    """

    def images_per_batch(self, default: int = 64) -> int:
        """Return `batch_size` as a number.

        Args:
            default: The number that "auto" stands for if the verb does not search for a batch size.
        """
        return default if self.batch_size == "auto" else self.batch_size

    def height_and_width(self) -> tuple[int, int]:
        """Return `image_size` as height and width, in pixels.

        Raises:
            RecipeError: It is auto, which only `train` with `time` replaces by a number.
        """
        if self.image_size == "auto":
            raise RecipeError(
                "image_size = auto: only `train` with `time` chooses one, for classification. Give "
                "a number of px."
            )
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def evaluation_precision(self) -> str:
        """The precision of the evaluation: `val_precision`, or `precision` if that is "same"."""
        return self.precision if self.val_precision == "same" else self.val_precision

    @model_validator(mode="after")
    def _check_pairs(self) -> Recipe:
        """Check the knobs that depend on each other."""
        if mistakes := list(pair_mistakes(self)):
            raise PairError(mistakes)
        return self


def default_of(name: str) -> Any:
    """Return the default of a knob."""
    return Recipe.model_fields[name].default


def _extra(name: str, key: str) -> Any:
    extra = Recipe.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra[key]


def group_of_knob(name: str) -> str:
    """Return the group that a knob belongs to."""
    group: str = _extra(name, "group")
    return group


def knobs_in_group(group: str) -> set[str]:
    """Return the names of the knobs in a group.

    Args:
        group: run, data, augmentation, model, optimization, distillation, dense tasks or
            pre-training.
    """
    return {name for name in Recipe.model_fields if _extra(name, "group") == group}


def knobs_of(verb: str) -> frozenset[str]:
    """Return the names of the knobs that a verb, "train" or "pretrain", uses."""
    return frozenset(name for name in Recipe.model_fields if _extra(name, "only") in ("", verb))


def idle_of(name: str) -> tuple[IdleRule, ...]:
    """Return the conditions under which a knob has no effect."""
    return tuple(IDLE_RULES[rule] for rule in _extra(name, "idle"))


def with_inferred(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Copy a recipe with values that the user did not set, and keep `model_fields_set` as it is."""
    copied = recipe.model_copy(update=dict(values))
    return Recipe.model_construct(_fields_set=set(recipe.model_fields_set), **dict(copied))
