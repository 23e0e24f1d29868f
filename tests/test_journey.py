"""The verbs end to end, as a user runs them, on a made folder of images."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convnextv2
from convnextv2.cli import main
from convnextv2.weights.files import Description, read_tensors, save_weights
from convnextv2.weights.load import open_weights

SMALL = (
    "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --image_size 64 --batch_size 4 --workers 0 --precision float32 "
    "--device cpu --log_every_steps 2 --tensorboard False"
).split()


def draw(path: Path, colour: int, seed: int, size: tuple[int, int] = (80, 70)) -> None:
    """A noisy picture whose colour tells its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 80, (*size, 3))
    pixels[..., colour] += 150
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.jpg", colour, 10 * colour + i)
        for i in range(3):
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


@pytest.fixture(scope="session")
def pretrained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pre"
    assert main(["pretrain", "--data_dir", str(photos), "--out", str(out), "--epochs", "2", "--decoder_dim", "16", *SMALL]) == 0
    return out


@pytest.fixture(scope="session")
def trained(photos: Path, pretrained: Path) -> Path:
    out = pretrained.parent / "train"
    options = ["--epochs", "12", "--lr", "0.01", "--ema", "--ema_decay", "0.9", "--scale", "0.5,1", "--init", str(pretrained)]
    assert main(["train", "--data_dir", str(photos), "--out", str(out), *options, *SMALL]) == 0
    return out


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "last" / "model.safetensors")[0]


def test_pretraining_leaves_a_run_with_encoder_decoder_and_report(pretrained: Path) -> None:
    opened = open_weights(pretrained / "last" / "model.safetensors")
    tensors, description = opened.tensors, opened.description
    assert description.kind == "fcmae" and {"mask_token", "encoder.stages.0.0.grn.gamma", "pred.weight"} <= tensors.keys()
    assert {record["kind"] for record in metrics(pretrained)} == {"train", "epoch"}
    assert "data:image/" in (pretrained / "report.html").read_text()


def test_training_from_it_learns_and_leaves_best_and_last(trained: Path) -> None:
    best = max(record["top1"] for record in metrics(trained) if record["kind"] == "eval")
    assert best == 1.0  # the colour of noise is easy
    description = open_weights(trained / "best" / "model.safetensors").description
    assert description.class_names == ["blue", "green", "red"]
    assert description.training["top1"] == best
    assert (trained / "report.html").stat().st_size > 10_000
    assert json.loads((trained / "last" / "model.json").read_text())["preprocessing"]["image_size"] == [64, 64]


def test_a_run_is_never_written_over(photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    assert main(["train", "--data_dir", str(photos), "--out", str(trained), *SMALL]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_a_run_that_failed_before_its_first_step_can_be_started_again(photos: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data_dir", str(photos), "--out", str(tmp_path / "run"), "--epochs", "1", *SMALL]
    assert main([*arguments, "--init", "nowhere"]) == 2
    assert main(arguments) == 0


def test_overwrite_refuses_a_folder_that_is_no_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["train", "--data_dir", str(photos), "--out", str(tmp_path), "--overwrite", *SMALL]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_resume_continues_to_the_same_weights_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    options = [
        "--data_dir",
        str(photos),
        "--lr",
        "0.01",
        "--ema",
        "--mixup",
        "0.3",
        "--erase_prob",
        "0.3",
        "--drop_path_rate",
        "0.2",
        *SMALL,
    ]
    assert main(["train", "--out", str(tmp_path / "straight"), "--epochs", "3", *options]) == 0
    # The length of a run shapes its learning rate, so the halted one has the same length and loses its last checkpoint.
    assert main(["train", "--out", str(tmp_path / "halted"), "--epochs", "3", "--keep_checkpoints", "9", *options]) == 0
    checkpoints = sorted((tmp_path / "halted" / "checkpoints").iterdir())
    assert len(checkpoints) == 3
    shutil.rmtree(checkpoints[-1])
    shutil.rmtree(tmp_path / "halted" / "last")
    torch.manual_seed(12345)  # what ran before must not matter
    assert main(["train", "--out", str(tmp_path / "halted"), "--resume"]) == 0
    straight, halted = weights(tmp_path / "straight"), weights(tmp_path / "halted")
    assert all(torch.equal(straight[name], halted[name]) for name in straight)
    kept = [(record["kind"], record["step"], record.get("loss")) for record in metrics(tmp_path / "halted")]
    assert kept == [(record["kind"], record["step"], record.get("loss")) for record in metrics(tmp_path / "straight")]


def test_resuming_with_another_verb_or_model_is_refused(
    photos: Path, pretrained: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [(folder / "recipe.yaml").read_text() for folder in (pretrained, trained)]
    assert main(["train", "--resume", "--out", str(pretrained)]) == 2
    assert "a pre-training run" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(trained), "--dims", "8,8,8,8"]) == 2
    assert "another model" in capsys.readouterr().err
    assert [(folder / "recipe.yaml").read_text() for folder in (pretrained, trained)] == before


def test_workers_change_nothing(photos: Path, tmp_path: Path) -> None:
    for workers in ("0", "2"):
        options = ["--epochs", "1", "--workers", workers, "--color_jitter", "0.4", "--auto_augment", "randaug-m9-mstd0.5-inc1"]
        small = [value for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if pair[0] != "--workers" for value in pair]
        assert main(["train", "--data_dir", str(photos), "--out", str(tmp_path / workers), *options, *small]) == 0
    one, two = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_validate_measures_the_run_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(trained)]) == 0
    assert "100.00%" in capsys.readouterr().out


def test_validate_takes_a_config_and_a_checkpoint_as_mindcv_does(photos: Path, trained: Path) -> None:
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


def test_validate_takes_a_weights_file_on_its_own(photos: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "best" / "model.safetensors", tmp_path)
    evaluation = convnextv2.validate(tmp_path / "model.safetensors", data_dir=str(photos))
    assert (evaluation.top1, evaluation.images) == (1.0, 9)
    assert (tmp_path / "model-report.html").exists()


def test_predict_prints_classes_and_json(photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(photos / "val" / "green" / "0.png")
    assert main(["predict", str(trained), image, "--json", "--top_k", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["image"] == image and result["predictions"][0]["class"] == "green" and len(result["predictions"]) == 2
    results = convnextv2.predict(trained, photos / "val")
    assert len(results) == 9
    assert sum(row["prob"] for row in results[0]["predictions"]) == pytest.approx(1, abs=1e-5)


def test_reconstruct_writes_a_gallery(photos: Path, pretrained: Path, tmp_path: Path) -> None:
    path = tmp_path / "gallery.png"
    assert main(["reconstruct", str(pretrained), str(photos / "val"), "--out", str(path), "--count", "3"]) == 0
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
    assert main([*arguments, "--out", str(tmp_path / "run")] if arguments[0] == "train" else arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_weights_of_another_size_and_encoders_without_head_are_refused(
    photos: Path, pretrained: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "a"),
        "--init",
        str(pretrained),
        "--image_size",
        "64",
        "--model",
        "convnextv2_atto",
    ]
    assert main([*arguments, "--batch_size", "4"]) == 2
    assert "the model is convnextv2_atto" in capsys.readouterr().err
    assert main(["predict", str(pretrained), str(photos / "val")]) == 2
    assert "without a classifier" in capsys.readouterr().err
    assert main(["reconstruct", str(trained), str(photos / "val")]) == 2
    assert "cannot reconstruct" in capsys.readouterr().err


def test_bad_images_stop_the_run_by_name_or_are_skipped_and_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "train" / "red" / "letter.jpg").write_text("Dear reader, this is no picture.")
    whole = (folder / "train" / "red" / "0.jpg").read_bytes()
    (folder / "train" / "red" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    arguments = ["train", "--data_dir", str(folder), "--epochs", "1", *SMALL]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 2
    assert ".jpg: is " in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "b"), "--bad_images", "skip", "--drop_last", "False"]) == 0
    out = capsys.readouterr().out
    assert "2 images could not be read" in out and "letter.jpg" in out and "half.jpg" in out


def test_a_broken_loss_keeps_the_last_good_checkpoint(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--data_dir", str(photos), "--out", str(tmp_path / "run"), "--epochs", "6", *SMALL]
    assert main([*arguments, "--optimizer", "sgd", "--lr", "1e12", "--min_lr", "1e12", "--warmup_epochs", "2"]) == 2
    message = capsys.readouterr().err
    assert "loss = " in message and ".jpg" in message
    assert (tmp_path / "run" / "recipe.yaml").exists()


def test_one_channel_models_train_and_predict(photos: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--data_dir",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--in_channels",
        "1",
        *SMALL,
    ]
    assert main(arguments) == 0
    assert len(convnextv2.predict(tmp_path / "run", photos / "val", top_k=1)) == 9


@pytest.fixture(scope="session")
def like_mindcv(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs with MindCV's keys, as its users would start them."""
    root = tmp_path_factory.mktemp("mindcv")
    yaml = root / "mine.yaml"
    yaml.write_text(
        "mode: 0\ndistribute: False\nval_while_train: True\nbatch_size: 4\nimage_resize: 64\nopt: adamw\nlr: 0.01\n"
        "scheduler: cosine_decay\nwarmup_epochs: 1\ndecay_epochs: 3\nepoch_size: 4\nema: True\nkeep_checkpoint_max: 2\n"
        "model: custom\ndepths: [1, 1, 1, 1]\ndims: [8, 16, 24, 32]\n"
    )
    out = root / "ckpt"
    command = [
        "train",
        "--config",
        str(yaml),
        "--data-dir",
        str(photos),
        "--ckpt-save-dir",
        str(out),
        "--num_parallel_workers",
        "0",
    ]
    assert main([*command, "--device_target", "CPU"]) == 0
    return out


def test_a_run_in_mindcvs_terms_leaves_mindcvs_files(like_mindcv: Path, photos: Path, tmp_path: Path) -> None:
    assert {path.name for path in like_mindcv.glob("*.ckpt")} == {
        "custom-3_6.ckpt", "custom-4_6.ckpt", "custom_best.ckpt", "optim_custom.ckpt",
    }  # fmt: skip
    header, *rows = (like_mindcv / "result.log").read_text().splitlines()
    assert header.split() == ["Epoch", "TrainLoss", "Top_1_Accuracy", "TrainTime", "EvalTime", "TotalTime"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    held, ours = open_weights(like_mindcv / "custom_best.ckpt"), open_weights(like_mindcv / "best" / "model.safetensors")
    assert held.origin.format == "mindcv"
    assert all(torch.equal(tensor, held.tensors[name]) for name, tensor in ours.tensors.items())
    averaged = open_weights(like_mindcv / "custom-4_6.ckpt", average=True).tensors
    last = open_weights(like_mindcv / "last" / "model.safetensors").tensors
    assert all(torch.equal(averaged[name], tensor) for name, tensor in last.items())


def test_mindcvs_checkpoint_of_an_epoch_continues_there_with_and_without_the_optimizer(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["train", "-c", str(like_mindcv.parent / "mine.yaml"), "--data_dir", str(photos), "--num_parallel_workers", "0"]
    third = str(like_mindcv / "custom-3_6.ckpt")
    for name, more in (("opt", ["--resume_opt", "True", "--ema", "False"]), ("plain", ["--ema", "False"])):
        out = tmp_path / name
        assert main([*base, "--ckpt_path", third, "--ckpt_save_dir", str(out), *more]) == 0
        assert "continues after epoch 3 of 4" in capsys.readouterr().out
        assert [line.split()[0] for line in (out / "result.log").read_text().splitlines()[1:]] == ["4"]
        assert [record["step"] for record in metrics(out) if record["kind"] == "epoch"] == [24]
    straight = open_weights(like_mindcv / "custom-4_6.ckpt").tensors
    exact, without = (open_weights(tmp_path / name / "custom-4_6.ckpt").tensors for name in ("opt", "plain"))
    assert all(torch.equal(exact[name], tensor) for name, tensor in straight.items())
    assert not all(torch.equal(without[name], tensor) for name, tensor in straight.items())
    assert main([*base, "--ckpt_path", third, "--ckpt_save_dir", str(tmp_path / "x"), "--epoch_size", "3"]) == 2
    assert "nothing is left to do" in capsys.readouterr().err
    assert main([*base, "--init", third, "--ckpt_save_dir", str(tmp_path / "anew"), "--epoch_size", "2"]) == 0
    assert "continues after" not in capsys.readouterr().out


@pytest.mark.parametrize("left_by", ["us", "MindCV"])
def test_mindcvs_resume_command_continues_the_folder_that_holds_the_checkpoint(
    left_by: str, like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ckpt"
    if left_by == "us":
        shutil.copytree(like_mindcv, out)
    else:
        out.mkdir()
        for name in ("custom-3_6.ckpt", "custom-4_6.ckpt", "optim_custom.ckpt", "custom_best.ckpt", "result.log"):
            shutil.copy(like_mindcv / name, out)
    command = ["train", "-c", str(like_mindcv.parent / "mine.yaml"), "--data_dir", str(photos), "--num_parallel_workers", "0"]
    command += ["--ckpt_path", str(out / "custom-3_6.ckpt"), "--resume_opt", "True", "--ckpt_save_dir", str(out)]
    assert main([*command, "--overwrite"]) == 2
    assert "would delete the weights to start from" in capsys.readouterr().err
    assert main([*command, "--epoch_size", "3"]) == 2 and len(list(out.glob("*.ckpt"))) == 4
    assert main(command) == 0
    assert ("goes on exactly from" in capsys.readouterr().out) == (left_by == "us")
    before, after = ((folder / "result.log").read_text().splitlines() for folder in (like_mindcv, out))
    assert after[:4] == before[:4] and [line.split()[0] for line in after[1:]] == ["1", "2", "3", "4"]
    assert [record["epoch"] for record in metrics(out) if record["kind"] == "epoch"] == [1, 2, 3, 4]
    for average in (False, True):
        straight, continued = (open_weights(folder / "custom-4_6.ckpt", average=average).tensors for folder in (like_mindcv, out))
        assert all(torch.equal(continued[name], tensor) for name, tensor in straight.items())
    top1 = [record["top1"] for record in metrics(like_mindcv) if record["kind"] == "epoch"]
    progress = json.loads((next((out / "checkpoints").glob("epoch-00004-*")) / "progress.json").read_text())
    assert progress["best"] == pytest.approx(max(top1), abs=1e-6)


def test_optimizer_state_of_another_head_or_stem_is_one_line(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-c", str(like_mindcv.parent / "mine.yaml"), "--data_dir", str(photos), "--num_parallel_workers", "0"]
    command += ["--ckpt_path", str(like_mindcv / "custom-3_6.ckpt"), "--resume_opt", "True"]
    for i, knob in enumerate((["--num_classes", "7"], ["--in_channels", "1"])):
        assert main([*command, "--ckpt_save_dir", str(tmp_path / str(i)), *knob]) == 2
        assert "Leave the state out (MindCV: resume_opt)" in capsys.readouterr().err


def test_resuming_appends_to_result_log_and_keeps_what_is_best(like_mindcv: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "ckpt"
    shutil.copytree(like_mindcv, out)
    before = (out / "result.log").read_text()
    best = json.loads((out / "best" / "model.json").read_text())["training"]["top1"]
    config = like_mindcv.parent / "mine.yaml"
    options = ["--ckpt_save_dir", str(out), "--resume", "--epoch_size", "6", "--num_parallel_workers", "0"]
    assert main(["train", "-c", str(config), "--data_dir", str(photos), *options]) == 0
    after = (out / "result.log").read_text()
    assert after.startswith(before) and len(after.splitlines()) == 7
    assert json.loads((out / "best" / "model.json").read_text())["training"]["top1"] >= best
    assert {"custom-5_6.ckpt", "custom-6_6.ckpt"} <= {path.name for path in out.glob("*.ckpt")}
    assert not (out / "custom-4_6.ckpt").exists()


def test_the_best_checkpoints_are_kept_by_score(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--epochs", "6", "--lr", "0.01", "--keep_policy", "top_k", "--keep_checkpoints", "2", "--scale", "0.5,1"]
    assert main(["train", "--data_dir", str(photos), "--out", str(out), *options, *SMALL]) == 0
    top1 = {record["epoch"]: record["top1"] for record in metrics(out) if record["kind"] == "eval"}
    best = sorted(top1, key=lambda epoch: top1[epoch], reverse=True)[:2]
    kept = {int(path.name.split("-")[1]) for path in (out / "checkpoints").iterdir()}
    assert kept == {*best, 6}
    assert (
        main(
            [
                "train",
                "--data_dir",
                str(photos),
                "--out",
                str(tmp_path / "all"),
                "--epochs",
                "4",
                "--ckpt_save_policy",
                "None",
                *SMALL,
            ]
        )
        == 0
    )
    assert len(list((tmp_path / "all" / "checkpoints").iterdir())) == 4


def test_mindcvs_files_inside_a_run_know_the_run(
    like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, report = str(like_mindcv / "custom_best.ckpt"), (like_mindcv / "report.html").read_bytes()
    assert main(["validate", best]) == 0
    printed = capsys.readouterr().out
    assert "measured are averaged weights" in printed and (like_mindcv / "custom_best-report.html").exists()
    assert (like_mindcv / "report.html").read_bytes() == report
    assert main(["validate", str(like_mindcv)]) == 0
    assert capsys.readouterr().out.split("top-1")[1].split()[0] == printed.split("top-1")[1].split()[0]
    image = str(photos / "val" / "red" / "0.png")
    found = []
    for weights in (best, str(like_mindcv)):
        assert main(["infer", "--image_path", image, "--ckpt_path", weights, "--precision", "float32"]) == 0
        found.append(ast.literal_eval(capsys.readouterr().out))
    assert found[0] == found[1] and set(found[0]) == {"red", "green", "blue"}
    assert main(["infer", "--image_path", str(photos / "val"), "--ckpt_path", best]) == 2
    assert "a folder, expected one image" in capsys.readouterr().err
    shutil.copy(best, tmp_path / "plain.ckpt")
    config = ["-c", str(like_mindcv.parent / "mine.yaml"), "--data_dir", str(photos), "--ckpt_path", str(tmp_path / "plain.ckpt")]
    assert main(["validate", *config]) == 2
    assert "has no averaged weights. Use --ema False" in capsys.readouterr().err
    for knob, value in {"num_classes": "7", "in_channels": "1", "dims": "8,16,24,40", "model": "convnextv2_atto"}.items():
        others = ["--depths", "none", "--dims", "none"] if knob == "model" else []
        assert main(["validate", *config, "--ema", "False", f"--{knob}", value, *others]) == 2
        assert f"Leave {knob} out" in capsys.readouterr().err
    assert main(["validate", *config, "--ema", "False"]) == 0


def test_infer_prints_mindcvs_dictionary(like_mindcv: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(next((photos / "val" / "red").iterdir()))
    assert main(["infer", "--image_path", image, "--ckpt_path", str(like_mindcv), "--model", "custom"]) == 0
    printed = ast.literal_eval(capsys.readouterr().out)
    assert set(printed) == {"red", "green", "blue"} and sum(printed.values()) == pytest.approx(1, abs=1e-5)
    assert main(["infer", "--image_path", image]) == 2
    assert main(["infer", "--image_path", image, "--ckpt_path", str(like_mindcv), "--model", "convnextv2_tiny"]) == 2
    assert "holds custom" in capsys.readouterr().err


def test_infer_takes_top_k_and_says_when_the_image_cannot_be_read(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(photos / "val" / "red" / "0.png")
    assert main(["infer", "--image_path", image, "--ckpt_path", str(trained), "--top_k", "2"]) == 0
    assert len(ast.literal_eval(capsys.readouterr().out)) == 2
    (tmp_path / "bad.png").write_text("no picture")
    bad = ["infer", "--image_path", str(tmp_path / "bad.png"), "--ckpt_path", str(trained), "--bad_images", "skip"]
    assert main(bad) == 2
    assert "bad.png: cannot be read" in capsys.readouterr().err


def test_weights_that_do_not_say_how_images_are_prepared_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = convnextv2.ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    save_weights(tmp_path / "ours", model.state_dict(), Description("classifier", "custom", model.arguments))
    assert main(["predict", str(tmp_path / "ours"), str(photos / "val")]) == 2
    assert "does not say how its images are prepared" in capsys.readouterr().err


def test_convert_and_inspect_from_the_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(trained), "--to", "transformers", "--out", str(tmp_path / "hf")]) == 0
    assert main(["inspect", str(tmp_path / "hf")]) == 0
    printed = capsys.readouterr().out
    assert "Hugging Face transformers" in printed and "classifier, 3 classes" in printed and "blue, green, red" in printed
    assert main(["convert", str(trained), "--to", "mindcv", "--out", str(tmp_path / "m.ckpt")]) == 2
    assert "--allow-drift" in capsys.readouterr().err
    assert main(["convert", str(trained), "--to", "mindcv", "--out", str(tmp_path / "m.ckpt"), "--allow-drift"]) == 0


def test_weights_of_others_are_validated_as_they_are(
    trained: Path, like_mindcv: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(trained)]) == 0
    expected = capsys.readouterr().out.split("top-1")[1].split()[0]
    assert main(["convert", str(trained), "--to", "transformers", "--out", str(tmp_path / "hf")]) == 0
    data = ["--data_dir", str(photos), "--image_size", "64", "--batch_size", "4", "--workers", "0", "--device", "cpu"]
    assert main(["validate", str(tmp_path / "hf"), *data, "--precision", "float32"]) == 0
    assert capsys.readouterr().out.split("top-1")[1].split()[0] == expected
    config = ["-c", str(like_mindcv.parent / "mine.yaml"), *data]
    assert main(["validate", *config, "--ckpt_path", str(like_mindcv / "custom-4_6.ckpt")]) == 0
    printed = capsys.readouterr().out
    figures = ast.literal_eval(next(line for line in printed.splitlines() if line.startswith("{'Top_1_Accuracy'")))
    assert set(figures) == {"Top_1_Accuracy", "loss"} and "measured are its averaged weights" in printed
    last = [record for record in metrics(like_mindcv) if record["kind"] == "eval"][-1]
    assert figures["Top_1_Accuracy"] == last["top1"]
    micro = Path(__file__).parent / "fixtures" / "mindcv" / "micro.ckpt"
    many = tmp_path / "many"
    for i in range(11):
        draw(many / "val" / str(i) / "0.png", 0, i)
    assert main(["validate", str(micro), "--data_dir", str(many), *data[2:]]) == 2
    assert "a classifier of 10 classes, the data have 11" in capsys.readouterr().err


def test_foreign_weights_that_name_their_classes_are_validated_by_name(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(trained), "--to", "transformers", "--out", "hf"]) == 0
    shutil.copytree(photos / "val" / "green", tmp_path / "few" / "val" / "green")
    data = {"data_dir": "few", "image_size": 64, "workers": 0, "device": "cpu", "precision": "float32"}
    assert convnextv2.validate("hf", **data).top1 == 1.0
    assert "The data have 1 of the 3 classes" in capsys.readouterr().out
    assert (tmp_path / "hf" / "report.html").exists() and not (tmp_path / "report.html").exists()
    (tmp_path / "few" / "val" / "green").rename(tmp_path / "few" / "val" / "emerald")
    assert main(["validate", "hf", "--data_dir", "few"]) == 2
    assert "class 'emerald' of the data is not among its 3 (blue, green, red)" in capsys.readouterr().err
    for name in ("a", "b"):
        shutil.copytree(photos / "val" / "red", tmp_path / "few" / "val" / name)
    convnextv2.validate("hf", **data)
    assert "names its classes otherwise (blue, green, red)" in capsys.readouterr().out


def test_the_report_of_a_cached_repository_is_not_written_into_the_cache(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cached = tmp_path / "hub" / "models--me--shoes" / "snapshots" / "0123"
    assert main(["convert", str(trained), "--to", "transformers", "--out", str(cached)]) == 0
    before = sorted(cached.iterdir())
    convnextv2.validate(cached, data_dir=str(photos), workers=0, device="cpu")
    assert sorted(cached.iterdir()) == before and (tmp_path / "shoes-report.html").exists()


def test_the_licence_of_the_initial_weights_is_that_of_the_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": convnextv2.ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3).state_dict()}, tmp_path / "off.pth")
    pre, run = tmp_path / "pre", tmp_path / "run"
    options = ["--data_dir", str(photos), "--epochs", "1", *SMALL]
    assert main(["pretrain", "--init", str(tmp_path / "off.pth"), "--out", str(pre), "--decoder_dim", "16", *options]) == 0
    assert main(["train", "--init", str(pre), "--out", str(run), *options]) == 0
    assert main(["train", "--out", str(run), "--resume", "--epochs", "2"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "CC-BY-NC" in printed and "started from" in printed
    told = open_weights(run / "best" / "model.safetensors").description.provenance
    assert told["init"]["init"]["format"] == "official"
    assert main(["predict", str(run), str(photos / "val" / "red"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "CC-BY-NC" in captured.err and all(json.loads(line) for line in captured.out.splitlines())
    assert main(["infer", "--image_path", str(photos / "val" / "red" / "0.png"), "--ckpt_path", str(run)]) == 0
    captured = capsys.readouterr()
    assert "CC-BY-NC" in captured.err and ast.literal_eval(captured.out)
    assert main(["validate", str(run)]) == 0
    assert "CC-BY-NC" in capsys.readouterr().out


def test_what_foreign_weights_tell_is_used_where_nobody_set_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = Path(__file__).parent / "fixtures" / "mindcv" / "micro.ckpt"
    arguments = ["train", "--data_dir", str(photos), "--init", str(fixture), "--image_size", "64", "--batch_size", "4"]
    arguments += ["--workers", "0", "--epochs", "1", "--tensorboard", "False", "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "From init: model custom, depths 1,1,2,1" in printed.replace("[", "").replace("]", "").replace(", 1", ",1").replace(
        ", 2", ",2"
    )
    assert "68 tensors loaded" in printed and "a head of 10 classes, the model has 3" in printed
    description = open_weights(tmp_path / "run" / "last" / "model.safetensors").description
    assert description.arguments["gelu"] == "tanh" and description.arguments["dims"] == [8, 16, 32, 64]


def test_the_hub_is_asked_only_for_names_of_repositories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    assert main(["convert", str(trained), "--to", "timm", "--out", str(tmp_path / "cached")]) == 0
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert not any(pattern.endswith((".bin", ".pt", ".pth")) for pattern in allow_patterns)
        return str(tmp_path / "cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert main(["inspect", "timm/convnextv2_atto.fcmae"]) == 0
    assert asked == ["timm/convnextv2_atto.fcmae"]
    assert main(["inspect", str(tmp_path / "missing.pt")]) == 2 and len(asked) == 1

    def unreachable(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    capsys.readouterr()
    assert main(["inspect", "timm/convnextv2_atto.fcmae"]) == 2
    assert "cannot be fetched from the Hugging Face Hub (no route to host)" in capsys.readouterr().err


def test_clean_and_augmented_versions_train_with_jsd(photos: Path, tmp_path: Path) -> None:
    options = ["--loss", "jsd", "--aug_splits", "3", "--auto_augment", "augmix-m5", "--epochs", "1", "--label_smoothing", "0.1"]
    assert main(["train", "--data_dir", str(photos), "--out", str(tmp_path / "run"), *options, *SMALL]) == 0
