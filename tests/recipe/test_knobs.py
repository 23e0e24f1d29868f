from types import UnionType
from typing import Union, get_args, get_origin

import pytest
from pydantic import ValidationError

from convnextv2.errors import RecipeError
from convnextv2.recipe.knobs import Recipe, group_of_knob
from convnextv2.recipe.options import own_options
from convnextv2.recipe.read import read_recipe
from convnextv2.recipe.values import read_value
from convnextv2.verbs.options import VERBS

EXTRAS = {name: field.json_schema_extra for name, field in Recipe.model_fields.items()}


def test_every_knob_has_a_group_and_a_sentence_of_help():
    for name, field in Recipe.model_fields.items():
        assert EXTRAS[name]["group"], name
        assert field.description.endswith("."), name


def test_groups_are_listed_in_one_piece_and_in_this_order():
    groups = [group_of_knob(name) for name in Recipe.model_fields]
    assert list(dict.fromkeys(groups)) == [
        *("run", "data", "augmentation", "model", "optimization", "distillation"),
        *("dense tasks", "pre-training"),
    ]
    assert sum(a != b for a, b in zip(groups, groups[1:], strict=False)) == 7


def test_evaluation_has_the_precision_of_training_unless_it_is_set():
    assert Recipe(precision="bfloat16").evaluation_precision == "bfloat16"
    assert Recipe(precision="bfloat16", val_precision="auto").evaluation_precision == "auto"


def test_mindcv_names_are_unique_and_none_of_ours():
    aliases = [extra["mindcv"] for extra in EXTRAS.values() if extra["mindcv"]]
    assert len(set(aliases)) == len(aliases) > 15
    assert not set(aliases) & set(Recipe.model_fields)


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_defaults_pass_their_own_checks(name):
    default = Recipe.model_fields[name].default
    assert read_value(name, default) == default


def test_bounds_are_of_the_kinds_that_messages_can_tell():
    kinds = {
        type(bound).__name__ for field in Recipe.model_fields.values() for bound in field.metadata
    }
    assert kinds <= {"Ge", "Gt", "Le", "Lt"}


def numeric(kind):
    """The parts of an annotation that are numbers, tuples of numbers, or tables of them."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [part for part in parts if {part, *get_args(part)} & {int, float}]


def absurd(kind, number):
    """Values of a knob that hold an absurd number: one for each form that its values have."""
    for part in numeric(kind):
        if get_origin(part) is dict:
            yield {"cat": number}
        elif get_origin(part) is tuple:
            inner = [each for each in get_args(part) if each is not Ellipsis]
            yield [number] * len(inner)
        else:
            yield number


@pytest.mark.parametrize(
    "name", [name for name, field in Recipe.model_fields.items() if numeric(field.annotation)]
)
@pytest.mark.parametrize("number", [10**30, 1e38, -(10**30)])
def test_absurd_numbers_are_refused_by_a_line_that_says_what_is_expected(name, number):
    for value in absurd(Recipe.model_fields[name].annotation, number):
        with pytest.raises(RecipeError) as error:
            read_recipe({name: value})
        lines = [line.strip() for line in str(error.value).splitlines()]
        assert any(line.startswith(f"{name} = ") and "expected" in line for line in lines), lines


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        (verb, one.name)
        for verb in VERBS
        for one in own_options(VERBS[verb])
        # The bounds of validate's sizes depend on the model.
        if numeric(one.kind) and (verb, one.name) != ("validate", "sizes")
    ],
)
def test_absurd_numbers_of_a_verbs_own_options_are_refused(verb, name):
    with pytest.raises(RecipeError, match=rf"\b{name} = 10+: expected"):
        VERBS[verb].read({name: 10**30})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"epochs": 10**30}, f"epochs = {10**30}: expected a whole number >= 1 and <= 1,000,000."),
        ({"workers": 2000}, "workers = 2000: expected no value above 1,024."),
        ({"dims": "8,8,8,1e9"}, "dims = (8, 8, 8, 1000000000): expected no value above 65,536."),
        ({"class_weights": "cat=1e30"}, "class_weights = cat=1e+30: expected numbers > 0 and <= 1"),
        ({"decay_milestones": [-1]}, "decay_milestones = (-1,): expected no value below 0."),
    ],
)
def test_the_bound_that_is_passed_is_named(settings, told):
    with pytest.raises(RecipeError) as error:
        read_recipe(settings)
    assert told in str(error.value)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError):
        Recipe().lr = 1.0


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ({"model": "custom"}, "model"),
        ({"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}, "model"),
        ({"resume": True, "overwrite": True}, "resume"),
        ({"mean": (0.5,)}, "std"),
        ({"scale_lr": True}, "scale_lr"),
        ({"scale": (1.0, 0.5)}, "scale"),
        ({"erase_ratio": (0.0, 1.0)}, "erase_ratio"),
        ({"workers": -1}, "workers"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": (64, 0)}, "image_size"),
        ({"image_size": 1_000_000}, "image_size"),
        ({"image_size": (64, 20_000)}, "image_size"),
        ({"model": "custom", "depths": (1, 0, 1, 1), "dims": (8, 8, 8, 8)}, "depths"),
        ({"color_jitter": -0.1}, "color_jitter"),
        ({"color_jitter": (0.1, 0.2)}, "color_jitter"),
        ({"std": (0.2, 0.0, 0.2)}, "std"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"columns": "image_id"}, "columns"),
        ({"columns": "image=a"}, "columns"),
        ({"columns": "path=a,path=b"}, "columns"),
        ({"columns": "path=,label=b"}, "columns"),
        ({"columns": "path=a,label=a"}, "columns"),
        ({"image_suffix": "images/.jpg"}, "image_suffix"),
        ({"shard": True, "elastic": True}, "shard"),
        ({"shard": True, "batch_size": "auto"}, "shard"),
        ({"shard": True, "mindcv_files": True}, "shard"),
        ({"shard": True, "compile": True}, "shard"),
        ({"shard": True, "optimizer": "lamb"}, "shard"),
        ({"shard": True, "optimizer": "adan"}, "shard"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused_by_name(settings, knob):
    with pytest.raises(ValidationError) as caught:
        Recipe(**settings)
    assert str(caught.value.errors()[0]["ctx"]["error"]).startswith(f"{knob} = ")


def test_knobs_that_belong_together_are_accepted():
    recipe = Recipe(
        model="custom",
        depths=(1, 1, 2, 1),
        dims=(8, 16, 32, 64),
        scale_lr=True,
        lr_batch_size=1024,
        image_size=(96, 64),
    )
    assert recipe.image_size == (96, 64)
