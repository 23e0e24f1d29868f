"""Accuracies of other libraries' weights are the ones that those libraries measure."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import SMALL, metrics

from convnextv2.cli import main

SIDE = 64
QUIET = ["--workers", "0", "--device", "cpu", "--precision", "float32", "--tensorboard", "False"]


def draw(folder: Path, classes: list[str], each: int = 2) -> list[Path]:
    """Random images of every class."""
    numbers = np.random.default_rng(0)
    paths = []
    for name in classes:
        for i in range(each):
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbers.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)).save(path)
            paths.append(path)
    return paths


def fit(head: torch.nn.Linear, features: torch.Tensor, rows: list[int]) -> None:
    """Solve for a head that is right about every image."""
    targets = torch.nn.functional.one_hot(torch.tensor(rows), head.out_features).double()
    with torch.no_grad():
        head.weight.copy_((torch.linalg.pinv(features.double()) @ targets).T)
        head.bias.zero_()


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float().div(255)


def top1(printed: str) -> str:
    return re.search(r"top-1\s+([\d.]+ ?%)", printed)[1].replace(" ", "")


def test_numbered_classes_have_the_accuracy_that_timm_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timm = pytest.importorskip("timm")
    from timm.data import create_dataset
    from timm.models import save_for_hf

    names = [f"class{i}" for i in range(1, 13)]
    draw(tmp_path / "data" / "val", names)
    dataset = create_dataset("", root=str(tmp_path / "data" / "val"))
    images = torch.stack(
        [(pixels(Path(path)) - 0.5) / 0.5 for path in dataset.filenames(absolute=True)]
    )
    rows = [target for _, target in dataset.reader.samples]
    model = timm.create_model("convnextv2_atto", num_classes=12, drop_path_rate=0.0).eval()
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        fit(model.head.fc, features, rows)
        assert model(images).argmax(-1).tolist() == rows  # 100 % by timm's own reader
    model.pretrained_cfg = dict(
        input_size=(3, SIDE, SIDE), crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3,
        interpolation="bicubic", architecture="convnextv2_atto",
    )  # fmt: skip
    save_for_hf(model, tmp_path / "timm", model_config=model.pretrained_cfg)
    assert (
        main(["validate", str(tmp_path / "timm"), "--data_dir", str(tmp_path / "data"), *QUIET[:6]])
        == 0
    )
    printed = capsys.readouterr().out
    assert top1(printed) == "100.00%"
    assert "sorted naturally, as timm does (class1 = 0, class10 = 9, class11 = 10, ...)" in printed
    # In our format the rows are still timm's, and a run that starts from them names its own.
    assert (
        main(
            [
                "convert",
                str(tmp_path / "timm"),
                "--to",
                "convnextv2",
                "--out",
                str(tmp_path / "ours.safetensors"),
            ]
        )
        == 0
    )
    run, val = tmp_path / "run", tmp_path / "data" / "val"
    shutil.copytree(val, tmp_path / "data" / "train")
    same = ["--crop_pct", "1", "--mean", "0.5", "--std", "0.5"]
    same += ["--lr", "0", "--min_lr", "0", "--weight_decay", "0", "--epochs", "1"]
    command = [
        "train",
        "--init",
        str(tmp_path / "ours.safetensors"),
        "--data_dir",
        str(tmp_path / "data"),
        "--out",
        str(run),
    ]
    command += [*same, "--image_size", str(SIDE), "--batch_size", "4", *QUIET]
    for more in ([], ["--class_order", "natural", "--overwrite"]):
        capsys.readouterr()
        assert main([*command, *more]) == 0
        printed = capsys.readouterr().out
        assert "Head: rows of 12 classes: sorted naturally, as timm does" in printed
        assert [record["top1"] for record in metrics(run) if record["kind"] == "eval"] == [1.0]
        assert top1(printed) == "100.00%"  # of the report
    assert main(["validate", str(run)]) == 0
    assert top1(capsys.readouterr().out) == "100.00%"


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """transformers' weights of the classes pants, hat, shoes, and images that they get right."""
    transformers = pytest.importorskip("transformers")
    names = ["pants", "hat", "shoes"]
    paths = draw(tmp_path / "data" / "train", names, 4) + draw(tmp_path / "data" / "val", names, 4)
    config = transformers.ConvNextV2Config(
        num_labels=3, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)},
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], layer_norm_eps=1e-6, drop_path_rate=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ConvNextV2ForImageClassification(config).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.stack(
        [(pixels(path) - mean.view(3, 1, 1)) / std.view(3, 1, 1) for path in paths]
    )
    rows = [names.index(path.parent.name) for path in paths]
    with torch.no_grad():
        fit(model.classifier, model.convnextv2(images).pooler_output, rows)
        assert model(images).logits.argmax(-1).tolist() == rows
    model.save_pretrained(tmp_path / "hf")
    processor = {
        "size": {"shortest_edge": SIDE},
        "crop_pct": 1.0,
        "image_mean": mean.tolist(),
        "image_std": std.tolist(),
    }
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path


def start(root: Path, data: str = "data", *more: str) -> list[str]:
    out = ["--out", str(root / "run"), "--init", str(root / "hf"), "--data_dir", str(root / data)]
    same = ["--crop_pct", "1", "--lr", "0", "--min_lr", "0", "--weight_decay", "0", "--epochs", "1"]
    small = SMALL[SMALL.index("--image_size") :]
    return ["train", *out, *same, *small, *more]


def test_training_that_changes_nothing_keeps_the_accuracy_of_named_classes(
    named: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(start(named)) == 0
    assert (
        "Head: rows of 3 classes: by name (hat = 1, pants = 0, shoes = 2)."
        in capsys.readouterr().out
    )
    assert [record["top1"] for record in metrics(named / "run") if record["kind"] == "eval"] == [
        1.0
    ]


def test_a_class_that_is_new_gets_a_new_row(
    named: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        (named / "data" / split / "hat").rename(named / "data" / split / "scarf")
    assert main(start(named)) == 0
    printed = capsys.readouterr().out
    assert (
        "Head: rows of 2 of 3 classes: by name (pants = 0, scarf = new, shoes = 2); 1 new."
        in printed
    )
    assert (
        metrics(named / "run")[-1]["top1"] >= 0.5
    )  # both old classes may lose images to the new one


def test_rows_that_wait_for_a_class_are_matched_with_nothing(
    named: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(start(named, "data", "--num_classes", "5")) == 0
    assert (
        "Head: rows of 3 classes: by name (hat = 1, pants = 0, shoes = 2)."
        in capsys.readouterr().out
    )
    assert metrics(named / "run")[-1]["top1"] == 1.0


def test_other_classes_get_a_new_head(named: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(named / "fruit" / "train", ["apple", "fig", "plum"], 4)
    assert main(start(named, "fruit")) == 0
    printed = capsys.readouterr().out
    assert "a new one, because it names its classes differently" in printed
    assert re.search(r"left out .*head.weight.*: a head of other classes", printed)
    capsys.readouterr()
    draw(named / "fruit" / "val", ["apple", "fig", "plum"], 1)
    assert (
        main(["validate", str(named / "hf"), "--data_dir", str(named / "fruit"), *QUIET[:6]]) == 2
    )
    message = capsys.readouterr().err
    assert (
        "names its classes differently (pants, hat, shoes); the data's classes are apple, fig, plum"
        in message
    )
    assert "Set class_order" in message
    order = named / "order.txt"
    order.write_text("fig\nplum\napple\n")
    command = [
        "validate",
        str(named / "hf"),
        "--data_dir",
        str(named / "fruit"),
        "--class_order",
        str(order),
    ]
    assert main([*command, *QUIET[:6]]) == 0
    assert "Rows of 3 classes: by name (apple = 2, fig = 0, plum = 1)." in capsys.readouterr().out


def test_a_measurement_of_other_data_has_a_page_of_its_own(named: Path) -> None:
    assert main(start(named)) == 0
    own = (named / "run" / "report.html").read_text()
    draw(named / "other", ["hat", "pants", "shoes"], 1)
    assert (
        main(["validate", str(named / "run"), "--data_dir", str(named / "other"), *QUIET[:6]]) == 0
    )
    assert (named / "run" / "report.html").read_text() == own
    assert (named / "run" / "report-other.html").is_file()
    assert main(["validate", str(named / "run"), *QUIET[:6]]) == 0
    assert len(list((named / "run").glob("report*.html"))) == 2
