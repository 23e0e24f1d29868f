"""Weights of classes, and other corrections for unbalanced classes."""

import pytest
from refusals import lines_of

from convnextv2.recipe.files import dump_recipe
from convnextv2.recipe.read import read_recipe


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
