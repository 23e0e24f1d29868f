"""embed: the features that timm computes, in the order of the images, in every format."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from json_answers import read_answer
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet
from trees import CLASSES, PREPROCESSING, network, photograph, save

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import ArtifactError, ConvNeXtV2Error, DataError, RecipeError
from convnextv2.inference import embedding_file
from convnextv2.verbs import embed

Rows = NDArray[np.float32]


@pytest.fixture(scope="module")
def expected(
    weights: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Rows]:
    """Compute timm's features of each picture, with timm's own preprocessing."""
    folder = tmp_path_factory.mktemp("timm") / "made"
    convnextv2.convert(weights, to="timm", out=folder)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    how = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    found = {}
    for path in sorted((pictures / "val").rglob("*.jpg")):
        with Image.open(path) as image, torch.inference_mode():
            features = model.forward_features(how(image.convert("RGB"))[None])
            found[str(path)] = model.forward_head(features, pre_logits=True)[0].numpy()
    return found


def read_paths(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def close_to(found: Rows, wanted: dict[str, Rows]) -> None:
    # Decoders and resizes differ by at most a rounded pixel here and there.
    rows = np.stack(list(wanted.values()))
    assert found.shape == rows.shape == (24, 48) and found.dtype == np.float32
    assert np.abs(found - rows).max() < 0.05 * np.abs(rows).max()
    cosines = (found * rows).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > 0.9995
    assert np.abs(rows - rows[0]).max() > 0.2 * np.abs(rows).max()  # images that are told apart


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_every_format_holds_the_features_of_timm_in_order(
    weights: Path, pictures: Path, expected: dict[str, Rows], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"made{suffix}"
    assert (
        convnextv2.embed(
            weights, pictures / "val", out=out, labels="folder", batch_size=5, precision="float32"
        )
        == out
    )
    about = json.loads(Path(f"{out}.json").read_text())
    assert about["rows"] == 24 and about["failed"] == 0 and about["dimensions"] == 48
    assert about["preprocessing"]["mean"] == PREPROCESSING["mean"] and about["normalize"] == "none"
    assert about["sha256"] == convnextv2.inspect(weights).origin.sha256
    labels = [name for name in CLASSES for _ in range(6)]
    if suffix == ".npy":
        rows, table = np.load(out), read_paths(Path(f"{out}.paths.csv"))
        names = [row["path"] for row in table]
        assert [row["label"] for row in table] == labels
    elif suffix == ".csv":
        table = read_paths(out)
        names = [row["path"] for row in table]
        assert [row["label"] for row in table] == labels
        rows = np.array([[row[f"embedding_{i}"] for i in range(48)] for row in table], np.float32)
    else:
        found = parquet.read_table(out)
        assert str(found.schema.field("embedding").type).startswith("fixed_size_list<")
        assert json.loads(found.schema.metadata[b"convnextv2"])["dimensions"] == 48
        names, rows = found["path"].to_pylist(), np.array(found["embedding"].to_pylist(), "f4")
        assert found["label"].to_pylist() == labels
    assert names == list(expected)
    close_to(rows, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {out.name, f"{out.name}.json"} | ({"made.npy.paths.csv"} if suffix == ".npy" else set())
    )


def test_order_and_values_do_not_depend_on_workers(
    weights: Path, pictures: Path, tmp_path: Path
) -> None:
    for workers in (0, 2):
        convnextv2.embed(
            weights,
            pictures / "val",
            out=tmp_path / f"{workers}.npy",
            workers=workers,
            batch_size=4,
        )
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    alone, two = (tmp_path / f"{workers}.npy.paths.csv" for workers in (0, 2))
    assert alone.read_bytes() == two.read_bytes()


def test_l2_rows_have_length_one_and_the_same_direction(
    weights: Path, pictures: Path, tmp_path: Path
) -> None:
    images = pictures / "val" / "ash"
    plain = np.load(convnextv2.embed(weights, images, out=tmp_path / "plain.npy"))
    unit = np.load(convnextv2.embed(weights, images, out=tmp_path / "unit.npy", normalize="l2"))
    assert np.linalg.norm(unit.astype(np.float64), axis=1) == pytest.approx(np.ones(6), abs=1e-6)
    assert unit == pytest.approx(plain / np.linalg.norm(plain, axis=1, keepdims=True), abs=1e-6)


def test_images_that_fail_are_listed_apart(
    weights: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(pictures / "val" / "birch", images)
    (images / "2b.jpg").write_bytes(b"no image")
    out = tmp_path / "made.npy"
    assert main(["embed", str(weights), str(images), "--out", str(out), "--json"]) == 0
    told = capsys.readouterr()
    found = read_answer("embed", told.out)
    assert found["rows"] == 6 and [row["path"] for row in found["failed"]] == [
        str(images / "2b.jpg")
    ]
    assert f"{images / '2b.jpg'}: " in told.err
    (failed,) = read_paths(tmp_path / "made.npy.failed.csv")
    assert failed["path"] == str(images / "2b.jpg") and failed["error"]
    assert np.load(out).shape == (6, 48)
    assert [Path(row["path"]).name for row in read_paths(tmp_path / "made.npy.paths.csv")] == [
        f"{i}.jpg" for i in range(6)
    ]
    (images / "2b.jpg").unlink()  # what was told of an earlier attempt is not true any more
    convnextv2.embed(weights, images, out=out)
    assert not (tmp_path / "made.npy.failed.csv").exists()


def test_a_failure_leaves_what_was_there(weights: Path, pictures: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "made.npy"
    shutil.copytree(pictures / "val" / "birch", images)
    convnextv2.embed(weights, images, out=out)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("made*")}
    (images / "5.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="5.jpg"):
        convnextv2.embed(weights, images, out=out, bad_images="fail", batch_size=2)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("made*")} == before
    for path in images.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image can be read"):
        convnextv2.embed(weights, images, out=out)


def test_an_interruption_leaves_no_folder(
    weights: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    for module, name in ((embed, "open_embedder"), (embedding_file, "_head")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, interrupt)
            convnextv2.embed(weights, pictures / "val" / "ash", out=tmp_path / "new" / "made.npy")
        assert list(tmp_path.iterdir()) == []


def test_a_table_gives_images_and_labels(weights: Path, pictures: Path, tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text(f"path,label\n{pictures}/val/cedar/3.jpg,yes\n{pictures}/val/ash/1.jpg,no\n")
    out = tmp_path / "made.npy"
    convnextv2.embed(weights, table, out=out, labels="table")
    rows = read_paths(tmp_path / "made.npy.paths.csv")
    assert [(Path(row["path"]).parent.name, row["label"]) for row in rows] == [
        ("cedar", "yes"),
        ("ash", "no"),
    ]
    with pytest.raises(RecipeError, match="images.csv is to be read, and would be replaced"):
        convnextv2.embed(weights, table, out=tmp_path / "images.csv")
    with pytest.raises(RecipeError, match="labels = folder: .* is a table"):
        convnextv2.embed(weights, table, out=out, labels="folder")
    with pytest.raises(RecipeError, match="labels = table: no table"):
        convnextv2.embed(weights, pictures, out=out, labels="table")


@pytest.mark.parametrize("outputs", ["classifier", "features"])
def test_an_artifact_gives_what_its_weights_give(
    weights: Path,
    pictures: Path,
    exported: Callable[..., Path],
    tmp_path: Path,
    outputs: str,
) -> None:
    images = pictures / "val" / "dogwood"
    wanted = np.load(
        convnextv2.embed(weights, images, out=tmp_path / "weights.npy", precision="float32")
    )
    artifact = exported("onnx", outputs=outputs)
    found = np.load(convnextv2.embed(artifact, images, out=tmp_path / "artifact.npy"))
    assert found == pytest.approx(wanted, abs=1e-4) and found.shape == (6, 48)


def test_an_artifact_without_an_embedding_is_refused(
    pictures: Path, exported: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="returns stage1, .*no embedding. Export it with"):
        convnextv2.embed(exported("onnx", outputs="backbone"), pictures, out=tmp_path / "x.npy")


def test_an_encoder_without_a_final_norm_gives_plain_means(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = network(num_classes=None)
    path = save(encoder, tmp_path / "encoder", kind="encoder", class_names=[])
    image = pictures / "val" / "ash" / "0.jpg"
    rows = np.load(convnextv2.embed(path, image, out=tmp_path / "made.npy", precision="float32"))
    assert "no final norm" in capsys.readouterr().err
    pixels = torch.from_numpy(photograph(100)).shape
    assert pixels == (75, 90, 3) and rows.shape == (1, 48)
    assert json.loads((tmp_path / "made.npy.json").read_text())["features"].startswith(
        "pooled; the"
    )
    head = network(num_classes=4)
    head.load_state_dict({**head.state_dict(), **encoder.state_dict()})
    with torch.no_grad():
        head.norm.weight.fill_(1), head.norm.bias.fill_(0)
    normed = save(head, tmp_path / "normed")
    other = np.load(convnextv2.embed(normed, image, out=tmp_path / "n.npy", precision="float32"))
    mean, std = rows.mean(), rows.std()
    assert other == pytest.approx((rows - mean) / np.sqrt(std**2 + 1e-6), abs=1e-4)


def test_mistakes_are_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"ends in \.npy, \.csv, \.parquet"):
        convnextv2.embed("no-such-run", "a.jpg", out=tmp_path / "made.txt")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConvNeXtV2Error, match="pyarrow is not installed. Install it with"):
        convnextv2.embed("no-such-run", "a.jpg", out=tmp_path / "made.parquet")
