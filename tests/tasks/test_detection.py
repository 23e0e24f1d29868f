"""Detection from a folder to pictures: training, resuming, measuring, predicting."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from json_answers import read_answer
from PIL import Image
from processes import run_alone, run_ranks
from runs import SMALL, metrics, weights
from shapes import write_coco, write_voc, write_yolo

import convnextv2
from convnextv2.cli import main
from convnextv2.data.dense import rle
from convnextv2.errors import ConvNeXtV2Error

DETECT = [
    *SMALL,
    *"--task detection --batch_size 2 --fpn_channels 16 --box_dim 32 --rois 32".split(),
    *"--proposals 50 --anchor_scale 4 --scale_jitter 0.8,1.25 --warmup_epochs 0 --lr 0.002".split(),
]


def train(*words: str | Path) -> int:
    return main(["train", *DETECT, *map(str, words)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "shapes"
    assert train("--data_dir", data, "--out", path, "--epochs", 2, "--ema", "True") == 0
    return path


def test_a_run_has_weights_figures_and_a_page(run: Path) -> None:
    records = metrics(run)
    evals = [record for record in records if record["kind"] == "eval"]
    assert [record["epoch"] for record in evals] == [1, 2]
    assert {"ap", "ap50", "ap75", "box_ap", "box_ap50"} <= evals[0].keys()
    description = json.loads((run / "best" / "model.json").read_text())
    assert description["kind"] == "detection" and description["class_names"] == ["disc", "square"]
    assert description["head"]["masks"] is True and description["head"]["fpn_channels"] == 16
    page = (run / "report.html").read_text()
    for heading in ("Average precision", "Precision and recall", "Worst images", "AP small"):
        assert heading in page


def halt(straight: Path, halted: Path) -> None:
    """Copy a run as it was when it had only its first checkpoint, in the middle of an epoch."""
    shutil.copytree(straight, halted)
    first, *rest = sorted((halted / "checkpoints").iterdir())
    assert json.loads((first / "progress.json").read_text())["batch"] == 1
    for path in rest:
        shutil.rmtree(path)


def assert_equal(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


COARSE = ("--finest_stride", 8)  # as in detect_small_data
OFTEN = ("--save_every_steps", 1, "--keep_policy", "all", "--ema", "True")


def test_a_run_killed_in_mid_epoch_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train("--data_dir", data, "--epochs", 2, "--out", straight, *OFTEN, *COARSE) == 0
    halt(straight, halted)
    assert main(["train", "--out", str(halted), "--resume"]) == 0
    assert_equal(straight, halted)
    assert metrics(straight)[-1]["ap"] == metrics(halted)[-1]["ap"]


def test_two_ranks_learn_measure_and_go_on_together(data: Path, tmp_path: Path) -> None:
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    one_each = ("--batch_size", 1, "--epochs", 1, *COARSE)
    run_ranks(2, "train", *DETECT, "--data_dir", data, "--out", straight, *one_each, *OFTEN)
    halt(straight, halted)
    run_ranks(2, "train", "--out", halted, "--resume")
    assert_equal(straight, halted)
    assert main(["validate", str(straight)]) == 0
    measured = [record for record in metrics(straight) if record["kind"] == "eval"]
    assert len(measured) == 1 and 0 <= measured[0]["ap"] <= 1


def test_the_number_of_workers_changes_nothing(data: Path, tmp_path: Path) -> None:
    common = ["--data_dir", data, "--epochs", 1, "--out"]
    assert train(*common, tmp_path / "0") == 0
    run_alone("train", *DETECT, *common, tmp_path / "1", "--workers", "1")
    assert_equal(tmp_path / "0", tmp_path / "1")


def test_validate_measures_what_training_measured(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(run), "--json"]) == 0
    answer = read_answer("validate of a detector", capsys.readouterr().out)
    best = max(record["ap"] for record in metrics(run) if record["kind"] == "eval")
    assert answer["ap"] == pytest.approx(best, abs=1e-9)
    assert len(answer["masks"]["by_class"]) == 2 and answer["images"] == 3
    assert answer["class_names"] == ["disc", "square"]


def test_predict_writes_pictures_and_json(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    words = ["predict", str(run), str(data / "images" / "val0.png"), "--out", str(out)]
    assert main([*words, "--threshold", "0.01", "--json"]) == 0
    [answer] = read_answer("predict of a detector", capsys.readouterr().out)
    assert (answer["width"], answer["height"]) == (80, 60)
    first = answer["objects"][0]
    assert first["class"] in ("disc", "square") and 0 <= first["score"] <= 1
    mask = rle.decode(rle.Rle(first["mask"]["counts"].encode(), (60, 80)))
    assert mask.shape == (60, 80)
    content = json.loads((out / "objects.json").read_text())
    assert len(content["annotations"]) == len(answer["objects"])
    with Image.open(out / "val0.png") as picture:
        assert picture.size == (320, 240)
    assert main([*words, "--threshold", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == []


def test_a_detector_starts_from_a_classifier_and_from_a_detector(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = convnextv2.ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=5)
    path = tmp_path / "classifier.pth"
    torch.save({"model": network.state_dict()}, path)
    assert train("--data_dir", data, "--out", tmp_path / "a", "--epochs", 1, "--init", path) == 0
    told = capsys.readouterr().out
    assert "56 tensors loaded, 0 adapted, 4 left out" in told and "head.bias (4)" in told
    assert train("--data_dir", data, "--out", tmp_path / "b", "--epochs", 1, "--init", run) == 0
    told = capsys.readouterr().out
    assert "0 new." in told


def test_yolo_boxes_and_pascal_voc_train_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, root in (("yolo", write_yolo(tmp_path / "y")), ("voc", write_voc(tmp_path / "v"))):
        assert train("--data_dir", root, "--out", tmp_path / name, "--epochs", 1) == 0
        assert "(boxes)" in capsys.readouterr().out
        assert (
            json.loads((tmp_path / name / "last" / "model.json").read_text())["head"]["masks"]
            is False
        )


def test_images_without_objects_and_grey_ones_of_mixed_sizes(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "d")
    content = json.loads((root / "instances_train.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] > 2]
    for i, size in enumerate(((40, 30), (200, 20))):
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(root / "images" / f"grey{i}.png")
        content["images"].append(
            {"id": 50 + i, "file_name": f"grey{i}.png", "width": size[0], "height": size[1]}
        )
    (root / "instances_train.json").write_text(json.dumps(content))
    assert train("--data_dir", root, "--out", tmp_path / "run", "--epochs", 1) == 0
    losses = [r["loss"] for r in metrics(tmp_path / "run") if r["kind"] == "train"]
    assert losses and np.isfinite(losses).all()


def test_masks_that_the_data_lack_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "d", masks=False)
    with pytest.raises(ConvNeXtV2Error, match="masks = on: the objects have no masks"):
        convnextv2.train(task="detection", data_dir=root, out=tmp_path / "run", masks="on")


def test_knobs_of_classification_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvNeXtV2Error, match="mixup is for classification only"):
        convnextv2.train(task="detection", data_dir=tmp_path, out=tmp_path / "run", mixup=0.5)


def test_validation_images_without_objects_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "d")
    content = json.loads((root / "instances_val.json").read_text())
    content["annotations"] = []
    (root / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(ConvNeXtV2Error, match="none of the 3 validation images has an object"):
        convnextv2.train(task="detection", data_dir=root, out=tmp_path / "run")


def test_changed_annotations_are_noticed_when_a_run_goes_on(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "d")
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "d" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    words = ["--data_dir", str(tmp_path / "d"), "--out", str(tmp_path / "run"), "--resume"]
    assert main(["train", *words, "--epochs", "3"]) == 2
    assert "the labels of the 6 training images" in capsys.readouterr().err
    shutil.copy(data / path.name, path)
    path = tmp_path / "d" / "instances_val.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    assert main(["train", *words, "--epochs", "3"]) == 0
    printed = capsys.readouterr().out
    assert "validation images have changed. The search for the best weights begins anew" in printed


def test_plan_counts_images_with_objects(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data_dir", str(data), "--epochs", "4", "--probe_seconds", "1", "--json"]
    assert main(["plan", *DETECT, *words]) == 0
    planned = read_answer("plan", capsys.readouterr().out)
    assert (planned["steps"], planned["epochs"]) == (12, 4)


def test_an_image_size_below_the_stride_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data_dir", data, "--out", tmp_path / "run", "--image_size", "16"]
    assert train(*options) == 2
    assert "image_size = 16: the network needs at least 32 px" in capsys.readouterr().err
