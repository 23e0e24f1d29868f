import pytest
from pydantic import ValidationError

from convnextv2.recipe.knobs import Recipe, group_of_knob
from convnextv2.recipe.values import read_value

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
