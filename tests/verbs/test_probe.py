import shutil
from pathlib import Path

import numpy as np
import pytest
from dense import detector, save_dense, segmentor
from json_answers import read_answer
from runs import SMALL, draw
from sklearn.neighbors import KNeighborsClassifier

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.probes import TEMPERATURE


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("probe") / "photos"
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    return root


@pytest.fixture(scope="module")
def pretrained(photos: Path) -> str:
    out = str(photos.parent / "pre")
    options = ["--data_dir", str(photos), "--out", out, *SMALL, "--epochs", "1"]
    assert main(["pretrain", *options, "--decoder_dim", "8"]) == 0
    return out


def test_neighbours_are_those_of_the_embeddings(
    photos: Path, pretrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded = []
    for split in ("train", "val"):
        out = tmp_path / f"{split}.npy"
        options = {"device": "cpu", "precision": "float32", "workers": 0}
        convnextv2.embed(pretrained, [str(photos / split)], out=str(out), **options)
        embedded.append(np.load(out))
    truth = np.repeat(["blue", "green", "red"], 8)  # in the order of the paths
    theirs = KNeighborsClassifier(
        5, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
    ).fit(embedded[0], truth)
    capsys.readouterr()
    asked = ["probe", pretrained, "--k", "5", "--device", "cpu", "--precision", "float32"]
    assert main([*asked, "--workers", "0", "--json"]) == 0
    answer = read_answer("probe", capsys.readouterr().out)
    assert answer["knn"] == pytest.approx(theirs.score(embedded[1], truth), abs=1e-12)
    assert answer["linear"] > 0.9  # the classes are colours
    assert answer["commonest"] == pytest.approx(1 / 3)
    assert (answer["training_images"], answer["validation_images"]) == (24, 24)


@pytest.mark.parametrize("build", [segmentor, detector])
def test_weights_of_a_dense_task_need_images_of_classes(build, tmp_path: Path) -> None:
    weights = save_dense(build(), tmp_path / "weights")
    with pytest.raises(RecipeError, match="images that have no class each. Give --data_dir DATA"):
        convnextv2.probe(str(weights))


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    photos: Path, pretrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for name in ("red", "green"):
            for i in range(3):
                draw(tmp_path / "data" / split / name / f"{i}.png", name == "green", i)
    (tmp_path / "data" / "val" / "red" / "0.png").write_bytes(b"none")
    found = convnextv2.probe(pretrained, data_dir=str(tmp_path / "data"), device="cpu", workers=0)
    assert (found.training_images, found.validation_images) == (6, 5)
    assert "1 validation image" in capsys.readouterr().out


def test_what_cannot_be_probed_is_refused(photos: Path, pretrained: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    weights = Path(pretrained) / "last"
    alone.write_bytes((weights / "model.safetensors").read_bytes())
    (tmp_path / "alone.json").write_bytes((weights / "model.json").read_bytes())
    with pytest.raises(DataError, match=r"24 of 24 validation images are training images too"):
        convnextv2.probe(pretrained, val_split="train", device="cpu", workers=0)
    with pytest.raises(RecipeError, match="data_dir is missing"):
        convnextv2.probe(alone, device="cpu")
    shutil.copytree(photos / "train", tmp_path / "data" / "train")
    with pytest.raises(DataError, match="no validation images"):
        convnextv2.probe(pretrained, data_dir=str(tmp_path / "data"), device="cpu", workers=0)
