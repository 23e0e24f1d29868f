"""validate, predict, reconstruct and infer, as a user runs them on what was trained."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import convnextv2
from convnextv2.cli import main


def test_validate_measures_the_run_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(trained)]) == 0
    assert "100.00%" in capsys.readouterr().out


def test_validate_takes_a_config_and_a_checkpoint_as_mindcv_does(
    photos: Path, trained: Path
) -> None:
    config = trained / "recipe.yaml"
    arguments = [
        "validate",
        "-c",
        str(config),
        "--data_dir",
        str(photos),
        "--ckpt_path",
        str(trained / "best" / "model.safetensors"),
    ]
    assert main(arguments) == 0


def test_validate_takes_a_weights_file_on_its_own(
    photos: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "best" / "model.safetensors", tmp_path)
    evaluation = convnextv2.validate(tmp_path / "model.safetensors", data_dir=str(photos))
    assert (evaluation.top1, evaluation.images) == (1.0, 9)
    assert (tmp_path / "model-report.html").exists()


def test_predict_prints_classes_and_json(
    photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(photos / "val" / "green" / "0.png")
    assert main(["predict", str(trained), image, "--json", "--top_k", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (
        result["image"] == image
        and result["predictions"][0]["class"] == "green"
        and len(result["predictions"]) == 2
    )
    results = convnextv2.predict(trained, photos / "val")
    assert len(results) == 9
    assert sum(row["prob"] for row in results[0]["predictions"]) == pytest.approx(1, abs=1e-5)


def test_reconstruct_writes_a_gallery(photos: Path, pretrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "gallery.png"
    assert (
        main(
            [
                "reconstruct",
                str(pretrained),
                str(photos / "val"),
                "--out",
                str(path),
                "--count",
                "3",
            ]
        )
        == 0
    )
    with Image.open(path) as picture:
        assert picture.width > 3 * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--learning_rate", "1"], "unknown key. Did you mean 'lr'?"),
        (["train", "--epochs", "many", "--mixup", "-1"], "2 errors"),
        (["train", "--data_dir", "nowhere"], "no such folder"),
        (["train", "--model", "convnextv2_mega"], "convnextv2_atto"),
        (["train", "--batch_size", "1000"], "batch_size = 1000"),
        (["train", "--device", "toaster"], "expected auto"),
        (["validate", "-c", "small_data"], "ckpt_path is missing"),
        (["validate", "-c", "small_data", "--ckpt_path", "nowhere.safetensors"], "no such file"),
        (["predict", "nowhere", "a.jpg"], "no such file or folder"),
    ],
)
def test_mistakes_are_one_clear_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train" and "--data_dir" not in arguments:
        arguments = [*arguments, "--data_dir", str(photos)]
    assert (
        main([*arguments, "--out", str(tmp_path / "run")] if arguments[0] == "train" else arguments)
        == 2
    )
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_infer_prints_mindcvs_dictionary(
    like_mindcv: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next((photos / "val" / "red").iterdir()))
    assert (
        main(["infer", "--image_path", image, "--ckpt_path", str(like_mindcv), "--model", "custom"])
        == 0
    )
    printed = ast.literal_eval(capsys.readouterr().out)
    assert set(printed) == {"red", "green", "blue"} and sum(printed.values()) == pytest.approx(
        1, abs=1e-5
    )
    assert main(["infer", "--image_path", image]) == 2
    assert (
        main(
            [
                "infer",
                "--image_path",
                image,
                "--ckpt_path",
                str(like_mindcv),
                "--model",
                "convnextv2_tiny",
            ]
        )
        == 2
    )
    assert "holds custom" in capsys.readouterr().err


def test_infer_takes_top_k_and_says_when_the_image_cannot_be_read(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(photos / "val" / "red" / "0.png")
    assert main(["infer", "--image_path", image, "--ckpt_path", str(trained), "--top_k", "2"]) == 0
    assert len(ast.literal_eval(capsys.readouterr().out)) == 2
    (tmp_path / "bad.png").write_text("no picture")
    bad = [
        "infer",
        "--image_path",
        str(tmp_path / "bad.png"),
        "--ckpt_path",
        str(trained),
        "--bad_images",
        "skip",
    ]
    assert main(bad) == 2
    assert "bad.png: cannot be read" in capsys.readouterr().err


def test_reconstruct_checks_everything_before_it_works(
    photos: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconstruct", str(pretrained), str(photos / "val")]
    for more, said in (
        (["--out", str(tmp_path / "x.xyz")], "expected the extension of an image format"),
        (["--out", str(tmp_path)], "is a folder"),
        (["--count", "0"], "count = 0: expected a whole number >= 1"),
        (["--count=-1"], "count = -1: expected a whole number >= 1"),
    ):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err


def test_reconstruct_skips_what_it_cannot_read_if_asked(
    photos: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    out = tmp_path / "made.png"
    command = ["reconstruct", str(pretrained), str(bad), "--out", str(out)]
    assert main([*command, "--bad_images", "skip"]) == 2
    assert "none of 1 images can be read" in capsys.readouterr().err
    assert main([*command, str(photos / "val")]) == 2 and not out.exists()
    capsys.readouterr()
    assert (
        main(
            [*command[:2], str(bad), str(photos / "val"), "--out", str(out), "--bad_images", "skip"]
        )
        == 0
    )
    assert f"{bad}: not readable, skipped." in capsys.readouterr().out and out.is_file()


@pytest.mark.skipif(
    os.name == "nt" or sys.platform == "darwin", reason="names of files are text there"
)
def test_names_that_are_no_text_stop_nothing(trained: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "val" / "red"
    shutil.copytree(photos / "val" / "red", folder)
    os.rename(folder / "0.png", os.fsencode(folder) + b"/caf\xe9.png")
    environment = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    commands = [
        ["predict", str(trained), str(folder)],
        ["validate", str(trained), "--data_dir", str(tmp_path / "data"), "--workers", "0"],
    ]
    code = f"from convnextv2.cli import main\nfor each in {commands}: print(main(each), 'returned')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    predicted, _, validated = done.stdout.partition("0 returned\n")
    assert "caf\\udce9.png" in predicted and "report-data.html" in validated, done.stderr
    assert validated.endswith("0 returned\n")
    assert "caf\\udce9.png" in (trained / "report-data.html").read_text()


def test_what_a_verb_does_not_use_is_refused(
    trained: Path, pretrained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(photos / "val" / "red" / "0.png")
    for command, said in (
        (["predict", str(trained), image, "--lr", "3"], "lr = 3: predict does not use it"),
        (
            ["predict", str(trained), image, "--image_size", "32"],
            "image_size = 32: predict does not use it",
        ),
        (
            ["reconstruct", str(pretrained), image, "--batch_size", "1"],
            "batch_size = 1: reconstruct does not use it",
        ),
    ):
        assert main(command) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(convnextv2.errors.RecipeError, match="mean = 0.5: predict does not use it"):
        convnextv2.predict(trained, image, mean=0.5)
    # MindCV's scripts pass their whole configuration to every program.
    assert (
        main(["infer", "--image_path", image, "--ckpt_path", str(trained), "--num_classes", "3"])
        == 0
    )
    assert "No effect here: num_classes." in capsys.readouterr().err
