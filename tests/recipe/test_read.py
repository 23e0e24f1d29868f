from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convnextv2.errors import RecipeError
from convnextv2.recipe import files
from convnextv2.recipe.files import dump_recipe, find_recipe, list_recipes
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


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def lines_of(*arguments, **keywords):
    with pytest.raises(RecipeError) as caught:
        read_recipe(*arguments, **keywords)
    return str(caught.value).splitlines()


# --- precedence and names -------------------------------------------------------------------------


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
        ('time: "1\\n\\nh"\nschedule: constant', r"time = 1\n\nh: the learning rate falls"),
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


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n"])
def test_an_empty_file_has_no_keys(recipe_file, text):
    assert read_recipe({}, config=recipe_file(text)) == (Recipe(), [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr: 1\nmixup: 0\nlr: 2\n", "lr = 2: given twice (line 1 and line 3). Keep one."),
        (
            "lr: 1\n\nlr : 1 : 2\n",
            "line 3: this is not valid YAML: mapping values are not allowed here.",
        ),
        ("# list\n- lr\n", "line 2: expected lines of the form 'key: value', found a list."),
        ("just words\n", "line 1: expected lines of the form 'key: value', found something else."),
        ("lr: !!python/object/apply:os.system ['true']\n", "line 1: this is not valid YAML"),
        ("lr: 1\n---\nlr: 2\n", "line 2: this is not valid YAML"),
        ("lr: *rate\n", "line 1: this is not valid YAML: found undefined alias 'rate'."),
        ("lr: " + "[" * 2000, "cannot be read as YAML: lists or mappings lie in each other"),
        ("lr: {a: 1}\n", "lr = {'a': 1}: expected a number >= 0 and <= 1,000,"),
        ("1: 2\n", "1 = 2: unknown key."),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(recipe_file, text, told):
    lines = lines_of({}, config=recipe_file(text))
    assert lines[0] == "mine.yaml has 1 error:" and lines[1].startswith(f"  {told}")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "photo.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    assert "cannot be read as YAML" in lines_of({}, config=tmp_path / "photo.yaml")[1]


def test_text_in_another_encoding_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("out: für\n".encode("latin-1"))
    assert (
        "byte 7 is not UTF-8. Save the file as text in UTF-8."
        in lines_of({}, config=tmp_path / "mine.yaml")[1]
    )


def test_lists_that_lie_too_deeply_are_refused(recipe_file):
    config = recipe_file(f"betas: {'[' * 3000}{']' * 3000}\n")
    assert "lie in each other too deeply" in lines_of({}, config=config)[1]


@pytest.mark.parametrize("key", ["loss", "unknown"])
def test_aliases_that_stand_for_millions_of_values_are_refused_at_once(key, recipe_file):
    lines = ["x0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    config = recipe_file("\n".join([*lines, f"{key}: *a8"]))
    assert "holds more than 1,000,000 values" in lines_of({}, config=config)[1]


def test_merges_that_stand_for_millions_of_values_are_refused_at_once(recipe_file):
    lines = ["x0: &a0 {k: 1}"]
    lines += [f"x{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)]
    config = recipe_file("\n".join(lines))
    assert "holds more than 1,000,000 values" in lines_of({}, config=config)[1]


def test_a_name_that_no_file_can_have_is_no_recipe():
    for name in ("x" * 300, "a\0b"):
        assert "neither a file nor a recipe of this package" in lines_of({}, config=name)[0]


def test_a_path_goes_before_a_shipped_recipe_and_names_need_no_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_recipe("convnextv2/convnextv2_tiny_ascend")
    for name in (
        "convnextv2_tiny_ascend",
        "convnextv2_tiny_ascend.yaml",
        "configs/convnextv2/convnextv2_tiny_ascend.yaml",
    ):
        assert find_recipe(name) == shipped
    Path("convnextv2_tiny_ascend.yaml").write_text("lr: 1\n")
    assert find_recipe("convnextv2_tiny_ascend.yaml") == Path("convnextv2_tiny_ascend.yaml")


def test_recipes_inside_the_installed_package_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "convnextv2")
    (tmp_path / "convnextv2/configs/sub").mkdir(parents=True)
    (tmp_path / "convnextv2/configs/sub/one.yaml").write_text("# The first.\n# More.\nlr: 2\n")
    (tmp_path / "convnextv2/configs/two.yaml").write_text("lr: 3\n")
    assert list_recipes() == [("sub/one", "The first."), ("two", "")]
    assert read_recipe({}, config="one")[0].lr == 2


def test_a_missing_recipe_names_the_nearest(tmp_path):
    with pytest.raises(
        RecipeError,
        match="config = convnextv2_tiny_ascent: neither .* Did you mean .*convnextv2_tiny_ascend",
    ):
        find_recipe("convnextv2_tiny_ascent")
    with pytest.raises(RecipeError, match="a folder"):
        find_recipe(tmp_path)


@pytest.mark.parametrize("name", [name for name, _ in list_recipes()])
def test_every_shipped_recipe_reads_and_says_what_it_is(name):
    read_recipe({}, config=name)
    assert dict(list_recipes())[name]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(
            lr=1e-7,
            out="a: b #c",
            init="none of these",
            data_dir="2024",
            erase_value=(0.0, 1.5, -2.0),
            image_size=(96, 64),
        ),
        Recipe(
            model="custom",
            depths=(1, 1, 2, 1),
            dims=(8, 16, 32, 64),
            workers=0,
            color_jitter=(0.4, 0.3, 0.2, 0.1),
            distribute=True,
        ),
    ],
)
def test_a_dumped_recipe_reads_back_equal(recipe, recipe_file):
    text = dump_recipe(recipe)
    read, _ = read_recipe({}, config=recipe_file(text))
    assert read == recipe and read.model_fields_set == recipe.model_fields_set
    assert [line.split(":")[0] for line in text.splitlines()] == [*KNOBS, "set"]


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("balanced", "balanced"),
        ("None", "none"),
        ("cat=2, big dog=0.5", {"cat": 2.0, "big dog": 0.5}),
        ("a=b=3", {"a=b": 3.0}),
        ({0: 2, "cat": "1e-1"}, {"0": 2.0, "cat": 0.1}),
    ],
)
def test_class_weights_are_a_word_or_a_table(given, expected, tmp_path):
    recipe, notes = read_recipe({"class_weights": given})
    assert recipe.class_weights == expected and notes == []
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    assert read_recipe({}, config=file)[0] == recipe


def test_numbers_in_a_recipe_are_those_of_the_command_line(recipe_file):
    text = "epochs: 010\nimage_size: [0032, 064]\nlr: 1:30\nseed: 0x10\nmixup: 0\n"
    lines = lines_of({}, config=recipe_file(text))
    assert any("lr = 1:30: expected a number" in line for line in lines)
    recipe, _ = read_recipe({}, config=recipe_file(text.replace("1:30", "1e-3")))
    assert (recipe.epochs, recipe.image_size, recipe.lr) == (10, (32, 64), 1e-3)
    assert (recipe.seed, recipe.mixup) == (16, 0)


def test_names_of_classes_in_a_recipe_are_texts(recipe_file):
    file = recipe_file(
        "class_weights: {01: 2, 1: 3, 1.0: 4, 1.00: 5, 1_0: 6, 0x10: 7, no: 8, ~: 9, 2024-01-01: 2}"
    )
    names = ["01", "1", "1.0", "1.00", "1_0", "0x10", "no", "~", "2024-01-01"]
    recipe, notes = read_recipe({}, config=file)
    assert list(recipe.class_weights) == names and notes == []
    again = recipe_file(dump_recipe(recipe))
    assert read_recipe({}, config=again)[0] == recipe


def test_a_class_that_is_given_twice_in_a_recipe_is_refused(recipe_file):
    lines = lines_of({}, config=recipe_file("lr: 1\nclass_weights:\n  cat: 2\n  'cat': 3\n"))
    assert "line 4: cat is given twice" in lines[1]
    lines = lines_of({}, config=recipe_file("class_weights: {[cat]: 2}\n"))
    assert "line 1: expected a name with a number" in lines[1]


def test_a_table_of_class_weights_may_be_merged_from_another(recipe_file):
    entry = "class_weights:\n  <<: &usual {1: 2, 2: 2}\n  2: 3\n"
    recipe, _ = read_recipe({}, config=recipe_file(entry))
    assert recipe.class_weights == {"1": 2.0, "2": 3.0}


@pytest.mark.parametrize("given", ["cat", "cat=", "cat=1,cat=2", "cat=x", {}, {"a": None}, 3])
def test_a_table_of_class_weights_that_cannot_be_read_is_refused(given):
    (line,) = lines_of({"class_weights": given})
    assert "expected one of none, balanced, effective, or names with numbers such as" in line


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sampling": 1.5}, "sampling = 1.5: expected natural, balanced, sqrt, or a number from 0"),
        ({"sampling": "sqrt", "shuffle": False}, "Set shuffle = True."),
        ({"class_weights": "a=0"}, "class_weights = a=0: expected numbers > 0."),
        ({"class_weights": "balanced", "loss": "asl_multi_label"}, "Use loss = ce or bce"),
        ({"class_weights": "balanced", "sampling": 0.5}, "correct twice. Keep one."),
        ({"class_weights": "balanced", "logit_adjustment": 1}, "correct twice. Keep one."),
        ({"logit_adjustment": 1, "loss": "bce"}, "Use loss = ce, or sampling instead."),
        ({"logit_adjustment": 1, "sampling": 0}, "Use sampling = natural or sqrt with it."),
    ],
    ids=str,
)
def test_corrections_that_do_not_go_together_are_refused(given, told):
    (line,) = lines_of(given)
    assert told in line


def test_corrections_that_go_together_are_taken():
    for knobs in (
        {"class_weights": "effective", "loss": "bce", "class_weights_beta": 0.9},
        {"logit_adjustment": 1, "sampling": "sqrt"},
        {"sampling": "balanced", "loss": "asl_single_label"},
        {"class_weights": "balanced", "sampling": 1, "mixup": 0.8},
    ):
        assert read_recipe(knobs)[1] == []
