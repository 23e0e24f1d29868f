import re
import subprocess
import sys
from pathlib import Path

import pytest

from convnextv2 import __version__, cli
from convnextv2.errors import DataError, LostRankError, RecipeError, Stopped
from convnextv2.recipe.knobs import Recipe, knobs_of
from convnextv2.recipe.read import read_recipe
from convnextv2.verbs.options import VERBS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def called(monkeypatch):
    """Record the calls of the command line: [(verb, arguments)]."""
    calls = []
    monkeypatch.setattr(
        cli, "load_verb", lambda name: lambda **arguments: calls.append((name, arguments))
    )
    return calls


@pytest.mark.parametrize(
    ("argv", "verb", "arguments"),
    [
        ("train", "train", {}),
        ("train -c small_data --lr 3e-4", "train", {"config": "small_data", "lr": "3e-4"}),
        ("train --config=a.yaml --data-dir=d", "train", {"config": "a.yaml", "data_dir": "d"}),
        ("train --data_dir d-e_f --data-dir g", "train", {"data_dir": "g"}),
        (
            "train --ema --resume False --distribute",
            "train",
            {"ema": "True", "resume": "False", "distribute": "True"},
        ),
        ("train --min_lr -1e-3 --lr -1", "train", {"min_lr": "-1e-3", "lr": "-1"}),
        ("train --scale [0.1,1] --init=a=b", "train", {"scale": "[0.1,1]", "init": "a=b"}),
        ("train --epoch_size 3 --mode 1", "train", {"epoch_size": "3", "mode": "1"}),
        ("train --dataset-sink-mode -c a", "train", {"dataset_sink_mode": "True", "config": "a"}),
        ("train --epoch 3 --lerning=x", "train", {"epoch": "3", "lerning": "x"}),
        ("train --defaults convnextv2", "train", {"defaults": "convnextv2"}),
        ("pretrain --mask_ratio 0.5", "pretrain", {"mask_ratio": "0.5"}),
        ("validate runs/a", "validate", {"run": "runs/a"}),
        ("validate --image_resize 64 runs/a", "validate", {"run": "runs/a", "image_resize": "64"}),
        (
            "validate -c y --data_dir d --ckpt_path w.ckpt",
            "validate",
            {"config": "y", "data_dir": "d", "ckpt_path": "w.ckpt"},
        ),
        (
            "predict runs/a a.jpg b/ --top-k 3 --json",
            "predict",
            {"run": "runs/a", "images": ["a.jpg", "b/"], "top_k": "3", "json": "True"},
        ),
        (
            "predict r --device cpu i.png",
            "predict",
            {"run": "r", "images": ["i.png"], "device": "cpu"},
        ),
        ("predict r -- --odd.jpg", "predict", {"run": "r", "images": ["--odd.jpg"]}),
        ("predict -- -r -a -- --b", "predict", {"run": "-r", "images": ["-a", "--", "--b"]}),
        (
            "predict r a.jpg --out=-o.csv",
            "predict",
            {"run": "r", "images": ["a.jpg"], "out": "-o.csv"},
        ),
        ("inspect -- -r", "inspect", {"weights": "-r"}),
        (
            "reconstruct r i.png --out g.png --count 4",
            "reconstruct",
            {"run": "r", "images": ["i.png"], "out": "g.png", "count": "4"},
        ),
        ("infer --image_path a.png --top-k 2", "infer", {"image_path": "a.png", "top_k": "2"}),
        ("models *tiny", "models", {"pattern": "*tiny"}),
        ("models", "models", {}),
        ("models --image-size 96", "models", {"image_size": "96"}),
        ("recipes", "recipes", {}),
        ("demo --quick --out d", "demo", {"quick": "True", "out": "d"}),
        (
            "pack_data --labelled False a b",
            "pack_data",
            {"labelled": "False", "data": "a", "shards": "b"},
        ),
    ],
)
def test_arguments_reach_the_verb_untouched(argv, verb, arguments, called):
    assert cli.main(argv.split()) == 0
    assert called == [(verb, arguments)]


def test_every_knob_can_be_given_to_train_and_pretrain(called):
    argv = [word for name in Recipe.model_fields for word in (f"--{name.replace('_', '-')}", "x")]
    assert cli.main(["pretrain", *argv]) == cli.main(["train", *argv]) == 0
    assert called[0][1] == called[1][1] == dict.fromkeys(Recipe.model_fields, "x")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("trian", "there is no verb 'trian'. Did you mean 'train'?"),
        ("xyz", "there is no verb 'xyz'. Choose one of pretrain, train,"),
        (
            "train --lr",
            "argument --lr: expected one argument. A value that begins with - is written "
            "--lr=VALUE. See: convnextv2 train --help",
        ),
        (
            "train --depths 1 1 6 2",
            "unrecognized arguments: 1 6 2. The values of a list are joined by commas without "
            "spaces, as in 3,3,9,3. See: convnextv2 train --help",
        ),
        (
            "train --std [1e-1, -.2, 3]",
            "unrecognized arguments: -.2, 3]. The values of a list are joined by commas without "
            "spaces, as in 3,3,9,3. See: convnextv2 train --help",
        ),
        (
            "train stray",
            "unrecognized arguments: stray. A recipe is given with --config RECIPE. "
            "See: convnextv2 train --help",
        ),
        ("audit a b", "unrecognized arguments: b. See: convnextv2 audit --help"),
        ("audit a -- -b", "unrecognized arguments: -b. See: convnextv2 audit --help"),
        (
            "train -lr 3",
            "-lr: there is no such option. A value that begins with - is written --OPTION=-lr, and",
        ),
        (
            "predict r -a.jpg",
            "-a.jpg: there is no such option. A value that begins with - is written "
            "--OPTION=-a.jpg, and a name that begins with - comes after --.",
        ),
        ("predict r a.jpg --json=False", "--json takes no value. See: convnextv2 predict --help"),
        ("predict runs/a", "the following arguments are required: IMAGE"),
        ("--lr 3", "unrecognized arguments: --lr 3"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line_and_exit_code_2(argv, told, called, capsys):
    assert cli.main(argv.split()) == 2
    assert not called
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"convnextv2: error: {told}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("train --lr 1 --lr=2", ["--lr is given twice; the last value counts, which is 2"]),
        (
            "train --epochs 1 --data-dir a --epochs 2 --data_dir b --epochs 1",
            [
                "--epochs is given 3 times; the last value counts, which is 1",
                "--data_dir is given twice; the last value counts, which is b",
            ],
        ),
        ("train -c a --config b", ["--config is given twice; the last value counts, which is b"]),
        ("pretrain --ema --ema no", ["--ema is given twice; the last value counts, which is no"]),
        (
            "train --epoch_size 3 --epoch-size 4",  # a name of MindCV, which argparse does not know
            ["--epoch_size is given twice; the last value counts, which is 4"],
        ),
        ("predict r a --top_k 1 b --top_k=", ["--top_k is given twice; the last value counts, "]),
        ("serve a b --port 1 --port 2", ["--port is given twice; the last value counts, which "]),
        ("train --lr 2 --lr 2", []),
        ("predict --json r a --json b", []),
        ("predict r a -- --top_k --top_k=2", []),
    ],
)
def test_what_of_an_option_that_is_given_twice_counts_is_said(called, capsys, argv, told):
    assert cli.main(argv.split()) == 0 and len(called) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(told)
    for line, start in zip(lines, told, strict=True):
        assert line.startswith(f"convnextv2: {start}")


def test_all_mistakes_of_knobs_are_reported_together(monkeypatch, capsys):
    monkeypatch.setattr(
        cli,
        "load_verb",
        lambda name: lambda config=None, **knobs: read_recipe(knobs, config=config),
    )
    assert cli.main("train --epoch 3 --mixup -0.8 --lr=fast".split()) == 2
    assert capsys.readouterr().err.splitlines() == [
        "convnextv2: error: this command has 3 errors:",
        "  epoch = 3: unknown key. Did you mean 'epochs'?",
        "  mixup = -0.8: expected a number >= 0 and <= 1,000. Alpha of the Beta distribution of "
        "mixup. 0: off.",
        "  lr = fast: expected a number >= 0 and <= 1,000,000,000,000. Peak learning rate, for a "
        "global batch of `lr_batch_size` images.",
    ]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RecipeError("no"), 2, "error: no"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            Stopped("stopped after step 3"),
            75,
            "stopped after step 3. To continue, add --resume to the same command.",
        ),
        (LostRankError("rank 1 ended."), 75, "error: rank 1 ended."),
        (
            OSError(28, "No space left on device", "runs/a"),
            2,
            "error: runs/a: No space left on device. "
            "Free some space, then start the same command again (a run: with --resume).",
        ),
        (
            OSError(36, "File name too long", "aaa"),
            2,
            "error: aaa: File name too long. Choose another path.",
        ),
    ],
)
def test_what_ends_a_verb_becomes_an_exit_code(error, code, told, monkeypatch, capsys):
    def fail(**arguments):
        raise error

    monkeypatch.setattr(cli, "load_verb", lambda name: fail)
    assert cli.main(["train"]) == code
    assert capsys.readouterr().err == f"convnextv2: {told}\n"


def test_mistakes_of_ours_keep_their_traceback(monkeypatch):
    def fail(**arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "load_verb", lambda name: fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_without_a_verb_all_verbs_are_shown(argv, capsys):
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.__doc__)}$", out, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_its_options(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main([verb, "--help-all" if verb in ("train", "pretrain") else "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: convnextv2 {verb}" in out
    # An empty default has neither brackets of its own nor a unit.
    assert not re.findall(r"such as \[\]|\[empty [^]]+\]|\[ [^]]+\]", out)


def test_help_shows_each_knob_once_in_its_group_with_type_default_and_unit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main(["pretrain", "--help-all"]) == 0
    out = capsys.readouterr().out
    for name in knobs_of("pretrain"):
        assert len(re.findall(rf"^  --{name} ", out, re.MULTILINE)) == 1, name
    assert re.search(
        r"--epochs V +Number of passes over the training images\. A whole number >= 1 and <= "
        r"1,000,000\. \[100 epochs\]",
        out,
    )
    assert (
        out.index("\nrun:")
        < out.index("--seed")
        < out.index("\ndata:")
        < out.index("--batch_size")
        < out.index("\npre-training:")
    )


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"convnextv2 {__version__}\n"


@pytest.mark.parametrize("verb", ["--help", "train --help", "recipes"])
def test_help_starts_without_torch(verb):
    command = [sys.executable, "-X", "importtime", "-m", "convnextv2", *verb.split()]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "convnextv2.cli" in imported and not imported & {"torch", "numpy", "torchvision"}


def test_a_reader_that_leaves_early_is_no_error():
    code = (
        "from convnextv2 import cli\n"
        "cli.load_verb = lambda _: lambda: print('x' * 10**6)\n"
        "exit(cli.main(['demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("script", ["train", "pretrain", "validate"])
def test_root_scripts_are_the_verbs(script):
    result = subprocess.run(
        [sys.executable, f"{script}.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith(f"usage: convnextv2 {script}")


def test_a_message_cannot_change_the_terminal(monkeypatch, capsys):
    def verb(**arguments):
        raise DataError("\x1b[2Ja.jpg: is no image.\nb\u202e.jpg: is no image.")

    monkeypatch.setattr(cli, "load_verb", lambda name: verb)
    assert cli.main(["recipes"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        r"convnextv2: error: \x1b[2Ja.jpg: is no image.",
        r"b\u202e.jpg: is no image.",
    ]
