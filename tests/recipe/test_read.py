"""Recipes from YAML, the command line and Python, and the mistakes in them."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import lines_of

from convnextv2.durations import read_duration
from convnextv2.errors import RecipeError
from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe
from convnextv2.recipe.values import read_value

KNOBS = list(Recipe.model_fields)
TEXT = [
    name
    for name, field in Recipe.model_fields.items()
    if str in (field.annotation, *get_args(field.annotation))
]
NOT_TEXT = [name for name in KNOBS if name not in TEXT]


def test_command_line_beats_yaml_beats_default(recipe_file):
    recipe, notes = read_recipe({"lr": "0.5"}, config=recipe_file("lr: 0.1\nmixup: 0.8\n"))
    assert (recipe.lr, recipe.mixup, recipe.cutmix) == (0.5, 0.8, Recipe().cutmix)
    assert notes == []


def test_nothing_given_is_the_default_recipe():
    assert read_recipe({}) == (Recipe(), [])


def test_names_may_be_written_with_hyphens_and_by_mindcvs_names(recipe_file):
    assert read_recipe(
        {"batch-size": "8", "epoch-size": "3"}, config=recipe_file("weight-decay: 0.1\n")
    )[0] == Recipe(batch_size=8, epochs=3, weight_decay=0.1)


def test_a_name_overrides_its_other_name(recipe_file):
    config = recipe_file("epoch_size: 450\nmodel: convnextv2_tiny\nopt: adamw\n")
    assert read_recipe({"epochs": "1"}, config=config)[0].epochs == 1


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lr", "3e-4", 3e-4),
        ("epochs", "1e2", 100),
        ("epochs", "5.0", 5),
        ("ema", "False", False),
        ("ema", "YES", True),
        ("ema", "0", False),
        ("distribute", "auto", "auto"),
        ("distribute", "False", False),
        ("scale", "[0.08, 1.0]", (0.08, 1.0)),
        ("scale", "(0.08, 1.0)", (0.08, 1.0)),
        ("scale", "0.08,1.0", (0.08, 1.0)),
        ("scale", "0.08 1.0", (0.08, 1.0)),
        ("image_size", "96", 96),
        ("image_size", "96, 64", (96, 64)),
        ("color_jitter", "0.3", 0.3),
        ("color_jitter", "[0.3, 0.2, 0.1]", (0.3, 0.2, 0.1)),
        ("num_classes", "none", None),
        ("num_classes", "", None),
        ("num_classes", None, None),
        ("auto_augment", "null", None),
        ("init", None, ""),
        ("init", "None", ""),
        ("dataset", "none", ""),
        ("freeze", "none", "none"),
        ("workers", "0", 0),
        ("workers", "auto", "auto"),
        ("stem_stride", "2", 2),
        ("data_dir", Path("photos/a"), "photos/a"),
        ("data_dir", "a folder ", "a folder "),
    ],
)
def test_values_are_read_by_the_declared_type(key, text, value):
    read = getattr(read_recipe({key: text})[0], key)
    assert read == value and type(read) is type(value)


def outcome(read, *arguments):
    try:
        return repr(read(*arguments))  # repr: 1 and True are not the same
    except (RecipeError, ValueError):
        return "refused"


@pytest.mark.parametrize("name", NOT_TEXT)
def test_yaml_is_as_strict_as_the_command_line(name):
    scalars = [
        True,
        False,
        None,
        0,
        1,
        2,
        3,
        10,
        -1,
        0.5,
        0.9,
        1.0,
        3.0,
        1.5,
        1e-9,
        1e6,
        -0.5,
        float("nan"),
        float("inf"),
    ]
    words = [
        "auto",
        "none",
        "random",
        str(Recipe.model_fields[name].default),
        "3e-4",
        "False",
        "x",
        "",
    ]
    lists = [[], [0.5], [1, 2], [0.1, 0.9], [0.3, 0.4, 0.5], [1, 1, 2, 1], [True, 1], [0.5, "x"]]
    outcomes = {
        str(value): outcome(read_value, name, str(value)) for value in scalars + words + lists
    }
    for value in scalars + words + lists:
        written = yaml.safe_load(yaml.safe_dump({"value": value}))["value"]
        assert outcome(read_value, name, written) == outcomes[str(value)], value
    assert "refused" in outcomes.values() and set(outcomes.values()) != {"refused"}


@settings(deadline=None, database=None)
@given(
    st.sampled_from(NOT_TEXT),
    st.one_of(st.booleans(), st.integers(), st.floats(), st.lists(st.floats(), max_size=4)),
)
@example("epochs", True)
@example("lr", False)
@example("ema", 1.0)
def test_any_value_means_the_same_as_its_text(name, value):
    assert outcome(read_value, name, value) == outcome(read_value, name, str(value))


@pytest.mark.parametrize("name", TEXT)
def test_a_text_in_yaml_is_the_text_of_the_command_line(name, recipe_file):
    text = {"columns": "path=Some thing-9", "time": "1h30m"}.get(name, "Some thing-9")
    needed = {"teacher": "run"} if name == "unlabelled" else {}
    config = recipe_file(yaml.safe_dump({name: text} | needed))
    assert (
        getattr(read_recipe({}, config=config)[0], name)
        == getattr(read_recipe({name: text} | needed)[0], name)
        == text
    )


def test_numbers_are_not_taken_for_text(recipe_file):
    assert (
        lines_of({}, config=recipe_file("val_split: 2024\n"))[1]
        == "  val_split = 2024: expected text. Put it in quotes: '2024'."
    )


# --- mistakes -------------------------------------------------------------------------------------


def test_all_mistakes_are_reported_together(recipe_file):
    config = recipe_file("mixup: -0.8\nwarmup_epoch: 20\nloss: cee\n")
    assert lines_of({"lr": "fast", "modle": "x", "hflip": "2"}, config=config) == [
        "mine.yaml has 3 errors:",
        "  warmup_epoch = 20: unknown key. Did you mean 'warmup_epochs'?",
        "  mixup = -0.8: expected a number >= 0 and <= 1,000. Alpha of the Beta distribution of "
        "mixup. 0: off.",
        "  loss = cee: expected one of ce, bce, asl_single_label, asl_multi_label, jsd. Did you "
        "mean 'ce'?",
        "this command has 3 errors:",
        "  modle = x: unknown key. Did you mean 'model'?",
        "  lr = fast: expected a number >= 0 and <= 1,000,000,000,000. Peak learning rate, for a "
        "global batch of `lr_batch_size` images.",
        "  hflip = 2: expected a number >= 0 and <= 1. Probability of a horizontal flip.",
    ]


def test_one_mistake_is_one_error():
    assert lines_of({"size": "64"}) == [
        "size = 64: unknown key. Did you mean 'batch_size' or 'image_size' or 'lr_batch_size'?"
    ]
    assert lines_of({"epoch": "3"}) == ["epoch = 3: unknown key. Did you mean 'epochs'?"]


def test_pairs_are_checked_beside_other_mistakes_and_where_their_knob_stands(recipe_file):
    lines = lines_of(
        {"resume": "1", "overwrite": "1", "lr": "x"}, config=recipe_file("scale: [1, 0.5]\n")
    )
    assert lines[:2] == [
        "mine.yaml has 1 error:",
        "  scale = (1.0, 0.5): expected 0 < least <= most.",
    ]
    assert lines[2] == "this command has 2 errors:" and "resume" in "".join(lines[3:])


def test_a_wrong_knob_is_not_blamed_twice():
    assert len(lines_of({"model": "custom", "depths": "1,2", "dims": "8,8,8,8"})) == 1


def test_no_message_is_pydantics(recipe_file):
    for name in KNOBS:
        for value in ("?!", "-7", "[]"):
            try:
                read_recipe({name: value})
            except RecipeError as error:
                assert "Input should" not in str(error) and "pydantic" not in str(error)
                assert name in str(error)


def test_a_value_of_several_lines_stays_on_one():
    assert len(lines_of({"lr": "a\nb"})) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('loggers: ["a\\n\\nb"]', r"loggers = a\n\nb: expected some of"),
        ('class_weights: {"a\\n\\nb": 0}', r"class_weights = a\n\nb=0: expected numbers > 0"),
        ('time: "1\\n\\nh"\nschedule: constant', r"time = 1\n\nh: it only works with"),
        ('"a\\e[31mb": 1', r"a\x1b[31mb = 1: unknown key"),
    ],
)
def test_a_mistake_is_one_printable_line_of_its_file(text, told, recipe_file):
    header, line = lines_of({}, config=recipe_file(text))
    assert header == "mine.yaml has 1 error:" and line.startswith(f"  {told}")


@pytest.mark.parametrize("value", ["x" * 10_000_000, [0] * 100_000, "9" * 4000])
def test_a_long_value_is_cut_off_in_its_message(value):
    [line] = lines_of({"image_size": value})
    assert line.startswith("image_size = ") and "...: expected" in line and len(line) < 1000


def test_text_with_a_nul_character_is_refused():
    lines = lines_of({"data_dir": "a\0b", "out": "a\0b", "init": "a\0b"})
    assert [line.split(".")[0] for line in lines[1:]] == [
        rf"  {name} = 'a\x00b': expected text" for name in ("data_dir", "out", "init")
    ]


def test_two_names_for_one_knob_are_refused():
    assert (
        lines_of({"epochs": 1, "epoch_size": 2})[0]
        == "epoch_size = 2: another name for epochs, which is given too. Keep one."
    )


def test_what_has_no_effect_is_announced():
    assert read_recipe({"momentum": "0.8", "eps": "1e-6"})[1] == [
        "No effect here: momentum (only sgd and rmsprop have it)."
    ]
    assert read_recipe({"momentum": "0.8", "eps": "1e-6", "optimizer": "sgd"})[1] == [
        "No effect here: eps (the optimizer has none)."
    ]


def test_the_recipe_of_a_run_is_not_told_again(recipe_file):
    config = recipe_file(dump_recipe(Recipe(momentum=0.8, ema_form="mindcv")))
    assert read_recipe({}, config=config)[1] == []
    assert read_recipe({"momentum": "0.7"}, config=config)[1] == [
        "No effect here: momentum (only sgd and rmsprop have it)."
    ]


# --- files ----------------------------------------------------------------------------------------


def test_knobs_that_a_verb_does_not_use_are_mistakes() -> None:
    uses = ("device", "batch_size")
    recipe, _ = read_recipe({"batch_size": "8"}, verb="predict", uses=uses)
    assert recipe.batch_size == 8
    with pytest.raises(RecipeError) as error:
        read_recipe({"lr": "3", "batch_siz": 4, "devices": "cpu"}, verb="predict", uses=uses)
    lines = str(error.value).splitlines()
    assert any(
        line.strip() == "lr = 3: predict does not use it. It belongs to train and pretrain."
        for line in lines
    )
    assert any("batch_siz = 4: unknown key. Did you mean 'batch_size'?" in line for line in lines)


@pytest.mark.parametrize("value", ["7", "[nonsense]", "lr", "{lr: 1}", "[[lr]]"])
def test_a_list_of_what_was_set_that_no_run_writes_is_refused(value, recipe_file):
    lines = lines_of({}, config=recipe_file(f"lr: 0.1\nset: {value}\n"))
    assert lines[0] == "mine.yaml has 1 error:" and "expected a list of knobs" in lines[1]


def test_numbers_in_a_recipe_are_those_of_the_command_line(recipe_file):
    text = "epochs: 010\nimage_size: [0032, 064]\nlr: 1:30\nseed: 0x10\nmixup: 0\n"
    lines = lines_of({}, config=recipe_file(text))
    assert any("lr = 1:30: expected a number" in line for line in lines)
    recipe, _ = read_recipe({}, config=recipe_file(text.replace("1:30", "1e-3")))
    assert (recipe.epochs, recipe.image_size, recipe.lr) == (10, (32, 64), 1e-3)
    assert (recipe.seed, recipe.mixup) == (16, 0)


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 5400), ("1.5", 90), ('"90"', 5400), ("1h30m", 5400)]
)
def test_a_number_for_time_is_in_minutes(written, seconds, recipe_file):
    recipe, _ = read_recipe({}, config=recipe_file(f"time: {written}\n"))
    assert read_duration(recipe.time) == seconds
    if written == "90":
        assert read_recipe({"time": 90})[0] == recipe


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("1:30", "Write 1h30m or 1m30s."),
        ("1:05:00", "Write 1h5m0s."),
        ("0", "2d."),
        ("-90", "2d."),
        (".inf", "2d."),
        ("true", "text"),
        ("[90]", "text"),
    ],
)
def test_a_time_that_is_no_duration_says_what_to_write(written, remedy, recipe_file):
    lines = lines_of({}, config=recipe_file(f"time: {written}\n"))
    assert lines[0] == "mine.yaml has 1 error:" and len(lines) == 2
    assert lines[1].startswith("  time = ") and remedy in lines[1]


def test_the_data_of_a_run_are_found_from_other_folders(tmp_path, monkeypatch):
    run = tmp_path / "project/runs/a"
    run.mkdir(parents=True)
    data = tmp_path / "project/data"
    data.mkdir()
    (run / "recipe.yaml").write_text("out: runs/a\ndata_dir: data\nset: [data_dir, out]\n")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for values in ({}, {"out": str(run), "resume": True}):
        recipe, notes = read_recipe(values, config=run / "recipe.yaml")
        assert recipe.data_dir == str(data)
        assert notes[0] == f"data_dir: data is {data}, relative to where the run was started."
    given = read_recipe({"data_dir": "mine"}, config=run / "recipe.yaml")
    assert given[0].data_dir == "mine" and not given[1]
    (here / "data").mkdir()  # data that have moved lie where the command runs
    assert read_recipe({}, config=run / "recipe.yaml")[0].data_dir == "data"
    (here / "data").rmdir()
    (run / "recipe.yaml").rename(run / "mine.yaml")
    (run / "mine.yaml").write_text("out: runs/a\ndata_dir: data\n")  # which no run wrote
    assert read_recipe({}, config=run / "mine.yaml")[0].data_dir == "data"


@pytest.mark.parametrize("text", ["epoch: 3\n", "- 1\n"])
def test_mistakes_in_the_recipe_of_a_run_say_of_which_run(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert lines_of({}, config=path)[0] == f"{path} has 1 error:"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_recipe_of_a_run_is_refused_and_one_of_a_user_is_all_defaults(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    told = lines_of({}, config=path)
    assert told[0] == f"{path} has 1 error:"
    assert told[1].strip().startswith("is empty. Expected every knob") and len(told) == 2
    path = path.rename(tmp_path / "mine.yaml")
    assert read_recipe({}, config=path)[0] == read_recipe({})[0]
