"""Recipe files: what is read as one, and how one is found."""

from pathlib import Path

import pytest
from refusals import lines_of

from convnextv2.errors import RecipeError
from convnextv2.recipe import files
from convnextv2.recipe.files import dump_recipe, find_recipe, list_recipes
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe


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
        (
            "lr: !!python/object/apply:os.system ['true']\n",
            "line 1: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed. Write a",
        ),
        ("lr: 1\n---\nlr: 2\n", "line 2: a second document begins here. Keep one in the file."),
        ("lr: 1\n\tepochs: 2\n", "line 2: the line begins with a tab. Indent with spaces."),
        ("lr: &a {}\n<<: *a\n", "line 2: a merge key (<<) cannot stand among the knobs."),
        ("lr: *rate\n", "line 1: this is not valid YAML: found undefined alias 'rate'."),
        ("lr: " + "[" * 2000, "cannot be read as YAML: lists or mappings are nested"),
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


def test_lists_that_are_nested_too_deeply_are_refused(recipe_file):
    config = recipe_file(f"betas: {'[' * 3000}{']' * 3000}\n")
    assert "nested too deeply" in lines_of({}, config=config)[1]


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
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match=r"a run folder\. Did you mean .*recipe\.yaml\?"):
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
    assert [line.split(":")[0] for line in text.splitlines()] == [*Recipe.model_fields, "set"]
