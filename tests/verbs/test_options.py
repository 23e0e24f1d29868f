"""Every verb and option: what is declared is what help, signature, and the verb itself say."""

import inspect
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

import convnextv2
from convnextv2 import arguments, cli
from convnextv2.cli import main
from convnextv2.errors import RecipeError
from convnextv2.recipe.files import find_recipe, list_recipes
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import REQUIRED, borrowed_options, own_options
from convnextv2.verbs.options import VERBS

ROOT = Path(__file__).parents[2]
EVERY = [
    (verb, one)
    for verb, options in VERBS.items()
    for one in (*own_options(options), *borrowed_options(options))
]
IDS = [f"{verb}-{one.name}" for verb, one in EVERY]
NEEDED = {
    one.name: "x" if not getattr(one, "is_many", False) else ["x"]
    for _, one in EVERY
    if one.default is REQUIRED and one.name != "to"
} | {"to": "timm"}


def needed(verb: str) -> dict[str, object]:
    return {
        one.name: NEEDED[one.name] for one in own_options(VERBS[verb]) if one.default is REQUIRED
    }


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each verb, each option in one line."""
    found = {}
    for verb in VERBS:
        parser = arguments.build_parser(VERBS[verb], shows_all=True)
        parser.formatter_class = lambda prog: arguments.argparse.HelpFormatter(
            prog, max_help_position=100, width=2000
        )
        found[verb] = parser.format_help()
    return found


@pytest.mark.parametrize(("verb", "one"), EVERY, ids=IDS)
def test_the_default_of_help_signature_and_verb_is_one(verb, one, helps):
    parameter = inspect.signature(getattr(convnextv2, verb)).parameters[one.name]
    options = VERBS[verb]
    if one.default is REQUIRED:
        assert parameter.default is inspect.Parameter.empty
        return
    assert parameter.default == one.default
    read = options.read(needed(verb))
    if one.name in options.knobs and not hasattr(read, one.name):
        assert getattr(read.recipe()[0], one.name) == one.default
    else:
        assert getattr(read, one.name) == one.default
    if (
        getattr(one, "is_positional", False)
        or one.name == "config"
        or (one.kind is bool and hasattr(one, "metavar"))
    ):
        return
    (line,) = re.findall(rf"^  --{one.name} .*$", helps[verb], re.MULTILINE)
    default = arguments._written(one.default)
    unit = f" {one.unit}" if one.unit and default != "empty" else ""
    assert line.endswith(f"[{default}{unit}]")


@pytest.mark.parametrize("verb", VERBS)
def test_every_knob_that_a_verb_does_not_use_is_refused_everywhere(verb, tmp_path, capsys):
    options = VERBS[verb]
    own = {one.name for one in own_options(options)}
    others = [name for name in Recipe.model_fields if name not in options.knobs and name not in own]
    function = getattr(convnextv2, verb)
    for name in others:
        if options.foreign:
            continue
        given = needed(verb) | {name: Recipe.model_fields[name].default}
        with pytest.raises(RecipeError) as error:  # from Python
            function(**given)
        (line,) = [line for line in str(error.value).splitlines() if name in line]
        assert re.search(rf"{verb} (does not use it|has no such option)\. (It|Did|See)", line), line
    if not others or options.foreign:
        return
    places = [
        str(word)
        for word in needed(verb).values()
        for word in ([word] if isinstance(word, str) else word)
    ]
    words = places if verb != "convert" else ["x", "--to", "timm", "--out", "x"]
    assert main([verb, *words, f"--{others[0]}", "1"]) == 2  # from the command line
    assert others[0] in capsys.readouterr().err
    if verb in ("train", "pretrain"):  # and from a file
        file = tmp_path / "recipe.yaml"
        file.write_text(f"{others[0]}: {json.dumps(Recipe.model_fields[others[0]].default)}\n")
        assert main([verb, "--config", str(file)]) == 2
        assert f"{verb} does not use it" in capsys.readouterr().err


def test_a_recipe_for_training_may_be_validated_and_planned_with(tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"lr: 0.1\nmixup: 0.8\ndata_dir: {tmp_path}\n")
    for command in (
        ["validate", str(tmp_path / "none"), "--config", str(file)],
        ["plan", "train", "--config", str(file)],
    ):
        assert main(command) == 2
        assert "does not use it" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            "predict R a.jpg --lr 3",
            "lr = 3: predict does not use it. It belongs to train and pretrain.",
        ),
        (
            "serve R --image_size 32",
            "image_size = 32: serve does not use it. It belongs to train and pretrain.",
        ),
        (
            "reconstruct R a.jpg --lr 1",
            "lr = 1: reconstruct does not use it. It belongs to train and pretrain.",
        ),
        (
            "export R --epochs 3",
            "epochs = 3: export does not use it. It belongs to train and pretrain.",
        ),
        ("validate R --mixup 1", "mixup = 1: validate does not use it. It belongs to train."),
        (
            "train --mask_ratio 0.5",
            "mask_ratio = 0.5: train does not use it. It belongs to pretrain.",
        ),
        ("pretrain --mixup 0.5", "mixup = 0.5: pretrain does not use it. It belongs to train."),
        (
            "serve R --max_image 3",
            "max_image = 3: serve has no such option. Did you mean 'max_images'?",
        ),
        ("demo --fast", "fast = True: demo has no such option. See: convnextv2 demo --help"),
        (
            "predict R a.jpg --top_k many",
            "top_k = many: expected a whole number >= 1 and <= 1,000,000.",
        ),
        (
            "export R --format onx",
            "format = onx: expected one of onnx, torch, aoti, openvino. Did you mean 'onnx'?",
        ),
        (
            "convert W --to timm",
            "out: is missing. File to write if the path has a suffix; otherwise a folder for the "
            "Hub.",
        ),
    ],
)
def test_mistakes_name_the_remedy(argv, told, capsys):
    assert main(argv.split()) == 2
    assert told in capsys.readouterr().err


def test_all_mistakes_of_own_options_and_knobs_come_together(capsys):
    assert main("export R --format x --images 0 --epochs 3 --batch_size many".split()) == 2
    err = capsys.readouterr().err
    assert "this command has 4 errors:" in err and all(
        word in err for word in ("format", "images", "epochs", "batch_size")
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_default_may_be_given(verb):
    options = VERBS[verb]
    own = {one.name: one.default for one in own_options(options) if one.default is not REQUIRED}
    read = options.read(needed(verb) | own)
    for name, default in own.items():
        found = getattr(read, name)
        assert (tuple(found) if isinstance(found, list) else found) == default


PATHS = [
    (verb, one)
    for verb, one in EVERY
    if "Path" in str(one.kind) and not (one.default is None and one.name == "config")
]


@pytest.mark.parametrize(("verb", "one"), PATHS, ids=[f"{verb}-{one.name}" for verb, one in PATHS])
def test_what_is_no_path_is_refused(verb, one):
    """An empty one, as an unset variable of the shell gives it, would be the working folder."""
    takes = "a list of paths" if one.is_many else "a path"
    needs_one = one.default not in ("", None)
    for value in (3, b"bytes", "a\0b", object(), *["", None][: 2 * needs_one]):
        given = [value] if one.is_many and value is not None else value
        with pytest.raises(RecipeError, match=f"(?m)^ *{one.name} = .*: expected {takes}. "):
            getattr(convnextv2, verb)(**needed(verb) | {one.name: given})


def test_a_list_that_needs_something_is_not_empty():
    with pytest.raises(RecipeError, match=r"images = \[\]: expected a list of paths. Image files"):
        convnextv2.predict("run", [])


def test_a_class_may_be_called_none():
    given = {"run": "r", "target": "none", "against": None}
    read = VERBS["explain"].read(given)
    assert (read.target, read.against) == ("none", "")


def test_switches_do_not_take_what_follows(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "load_verb", lambda name: lambda **arguments: calls.append(arguments))
    assert main("predict R --json a.jpg".split()) == 0
    assert calls == [{"run": "R", "json": "True", "images": ["a.jpg"]}]


def test_what_a_user_set_travels_with_the_options(tmp_path):
    read = VERBS["predict"].read({"run": "r", "images": "a", "device": "cpu"})
    assert read.recipe()[0].model_fields_set == {"device"}


@pytest.mark.parametrize("verb", VERBS)
def test_python_calls_are_checked_as_functions_are(verb):
    function = getattr(convnextv2, verb)
    with pytest.raises(TypeError, match="takes . positional arguments"):
        function(*range(9))
    assert inspect.getdoc(function).startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def test_types_are_seen_by_the_checker_of_a_user(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import convnextv2\n"
        "run = convnextv2.train(data_dir='d', epochs=3, lr=1e-3)\n"
        "reveal_type(run)\n"
        "convnextv2.predict('r', ['a.jpg'], top_k=3, device='cpu')\n"
        "convnextv2.predict('r', 'a.jpg', lr=3)\n"
        "convnextv2.train(epochs='many')\n"
    )
    # To read the types of these packages takes most of the time, and they tell nothing of ours.
    others = "[mypy-torch.*,numpy.*,PIL.*]\nfollow_imports = skip\n"
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n{others}")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(program),
    ]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    assert 'program.py:3: note: Revealed type is "convnextv2.run.Run"' in found
    assert 'program.py:5: error: Unexpected keyword argument "lr" for "predict"' in found
    wrong = 'Argument "epochs" to "train" has incompatible type "str"; expected "int"'
    assert f"program.py:6: error: {wrong}" in found
    assert "Found 2 errors" in found, found


def test_the_stub_of_the_public_face_is_what_the_declarations_say():
    script = ROOT / "scripts" / "write_stub.py"
    path = Path(convnextv2.__file__).with_suffix(".pyi")
    assert path.read_text() == runpy.run_path(str(script))["stub"](), f"Run: python {script}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_with_every_verb_and_knob(shell, capsys):
    assert main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS) and "mask_ratio" in script and "top_k" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_options_of_a_verb(tmp_path, capsys):
    main(["--completion", "bash"])
    file = tmp_path / "completion.bash"
    file.write_text(capsys.readouterr().out)
    program = (
        f"source {file}; COMP_WORDS=(convnextv2 predict --top); COMP_CWORD=2; "
        "_shtab_convnextv2 convnextv2 --top predict; echo ${COMPREPLY[@]}"
    )
    found = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert found.stdout.split() == ["--top_k"], found.stderr


def test_a_shell_without_completion_is_one_line(capsys):
    assert main(["--completion", "cmd"]) == 2
    assert "completion = cmd: expected one of bash" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "pretrain"])
def test_help_shows_what_matters_and_how_to_see_all(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    shown = set(re.findall(r"^  --(\w+)", out, re.MULTILINE)) & Recipe.model_fields.keys()
    assert 14 <= len(shown) <= 15
    hidden = len(VERBS[verb].knobs) - len(shown)
    assert f"There are {hidden} more knobs: convnextv2 {verb} --help-all" in out
    assert main([verb, "--help-all"]) == 0
    every = set(re.findall(r"^  --(\w+)", capsys.readouterr().out, re.MULTILINE))
    assert every >= VERBS[verb].knobs.keys()


def test_the_schema_describes_every_shipped_recipe(capsys):
    assert main(["recipes", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema_rs.validator_for(schema)  # checks the schema too
    for name, _ in list_recipes():
        keys = yaml.safe_load(find_recipe(name).read_text()) or {}
        assert keys.keys() <= schema["properties"].keys(), name
    assert validator.is_valid({"lr": 0.1, "epoch_size": 3})
    assert not validator.is_valid({"lrr": 0.1}) and not validator.is_valid({"mixup": -1})


def test_a_recipe_is_copied_and_never_over_another_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "--copy", "small_data"]) == 0
    assert (tmp_path / "small_data.yaml").read_bytes() == find_recipe("small_data").read_bytes()
    assert main(["recipes", "--copy", "small_data"]) == 2
    assert "small_data.yaml exists in this folder" in capsys.readouterr().err
