"""Nothing is written over what a verb did not write, nor where it would be read as an image."""

import shutil
from pathlib import Path

import pytest
from dense import detector, save_dense, segmentor
from dense import picture as smooth
from runs import SMALL, draw
from trees import network, save

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import RecipeError, RunError
from convnextv2.places import check_page, check_place, check_unread


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places") / "photos"
    for colour, name in enumerate(("red", "green")):
        for i in range(4):
            draw(root / name / f"{i}.png", colour, 10 * colour + i)
    return root


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(network(), tmp_path_factory.mktemp("places"))


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_lies_among_the_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place in ("photos", "photos/new", "photos/a/b.png", "photos/../photos/x"):
        with pytest.raises(RecipeError, match=r"out = .*: lies in .*photos, whose images are read"):
            check_unread(tmp_path / place, [tmp_path / "photos"])
    with pytest.raises(RecipeError, match=r"pictures = .*: is an image to be read"):
        check_unread(tmp_path / "a.png", [tmp_path / "a.png"], option="pictures")
    for place in ("photos-2", "a.png", "."):
        check_unread(tmp_path / place, [tmp_path / "photos", tmp_path / "b.png"])


def test_a_page_replaces_only_a_page(tmp_path: Path) -> None:
    table = tmp_path / "table.html"
    table.write_text("image,label\na.jpg,cat\n")
    for path, why in (
        (tmp_path, "is a folder. Give a file such as .*a.html"),
        (tmp_path / "photo.jpg", "expected the name of a page, such as a.html"),
        (table, "exists, and is not a page, so it is not replaced"),
    ):
        with pytest.raises(RecipeError, match=f"out = .*: {why}"):
            check_page(path, "a.html")
    table.write_text("\n<!DOCTYPE html>\n<title>an older page</title>")
    check_page(table, "a.html")
    check_page(tmp_path / "new" / "page.HTM", "a.html")


def test_a_place_that_cannot_be_written_is_named_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"pictures = .*: nothing can be written in"):
        check_place(tmp_path / "file" / "a.png", option="pictures")


def test_a_link_to_nothing_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "runs"
    link.symlink_to(tmp_path / "disk")  # such as one that is not mounted
    what = f"{link} is a link to {tmp_path / 'disk'}, which is gone"
    with pytest.raises(RecipeError) as error:
        check_place(link / "a.html")
    assert what in str(error.value)
    images = tmp_path / "images"
    draw(images / "red/1.png", 0, 1)
    assert main(["train", "--data_dir", str(images), "--out", str(link / "a"), *SMALL]) == 2
    assert f"{link}: {what}. Choose another path." in capsys.readouterr().err


def test_a_check_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "new" / "deep" / "a.png")
    check_page(tmp_path / "new" / "page.html", "a.html")
    monkeypatch.chdir(tmp_path)
    check_place(Path("new/a.png"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [segmentor, detector])
def test_pictures_of_predictions_do_not_become_images(make, tmp_path: Path) -> None:
    weights = save_dense(make(), tmp_path / "weights")
    images = smooth(tmp_path / "images" / "a.png").parent
    with pytest.raises(RecipeError, match="would be read as an image the next time"):
        convnextv2.predict(weights, images, out=images / "found", device="cpu")
    assert list(files_in(images)) == [str(images / "a.png")]


@pytest.mark.parametrize(("make", "what"), [(segmentor, "segmentor"), (detector, "detector")])
def test_a_folder_of_pictures_is_not_called_like_a_table(make, what, tmp_path: Path) -> None:
    weights = save_dense(make(), tmp_path / "weights")
    image = smooth(tmp_path / "a.png")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="file: is a file. Give a folder."):
        convnextv2.predict(weights, image, out=tmp_path / "file", device="cpu")
    with pytest.raises(RecipeError, match="out = .*file/found: nothing can be written"):
        convnextv2.predict(weights, image, out=tmp_path / "file" / "found", device="cpu")
    for name in ("found.csv", "found.JSON"):
        with pytest.raises(RecipeError, match=f"predictions of a {what} are pictures and data in"):
            convnextv2.predict(weights, image, out=tmp_path / name, device="cpu")
    assert not list(tmp_path.glob("found*")) and (tmp_path / "file").read_text() == "mine"


def test_a_threshold_of_detectors_that_has_no_effect_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = smooth(tmp_path / "a.png")
    for make, has_effect in ((segmentor, False), (detector, True)):
        weights = save_dense(make(), tmp_path / make.__name__)
        convnextv2.predict(weights, image, threshold=0.9, device="cpu")
        said = "No effect here: threshold (it is for detectors)." in capsys.readouterr().err
        assert said != has_effect


def test_embeddings_do_not_become_images_and_replace_only_embeddings(
    photos: Path, classifier: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(photos, tmp_path / "photos")
    before = files_in(root)
    with pytest.raises(RecipeError, match="would be read as an image the next time"):
        convnextv2.embed(classifier, root, out=root / "embeddings.npy", device="cpu")
    table = tmp_path / "labels.csv"
    table.write_text("image,label\na.png,red\n")
    with pytest.raises(RecipeError, match="is not a file of embeddings, so it is not replaced"):
        convnextv2.embed(classifier, root, out=table, device="cpu")
    assert files_in(root) == before and table.read_text().startswith("image,label")
    for _ in range(2):  # its own file is replaced
        convnextv2.embed(classifier, root, out=tmp_path / "e.csv", device="cpu", workers=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "image,label\n1.jpg,cat\n"),
        ("train.csv", "image,labels\n1.jpg,cat\n"),
        ("train.csv", "﻿image;error\n1.jpg;x\n"),
        ("train.json", '[{"image": "1.jpg", "label": "cat"}]'),
        ("train.jsonl", '{"image": "1.jpg", "label": "cat"}\n'),
        ("notes.json", "{}"),
    ],
)
def test_predictions_do_not_replace_a_table_of_labels(
    name: str, content: str, photos: Path, classifier: Path, tmp_path: Path
) -> None:
    table = tmp_path / name
    table.write_text(content)
    with pytest.raises(RecipeError, match="is not a file of predictions, so it is not replaced"):
        convnextv2.predict(classifier, photos / "red", out=table, device="cpu")
    assert table.read_text() == content


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_predictions_replace_earlier_ones(
    suffix: str, photos: Path, classifier: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"found{suffix}"
    convnextv2.predict(classifier, photos / "red" / "0.png", out=out, device="cpu")
    first = out.read_bytes()
    convnextv2.predict(classifier, photos / "red", out=out, device="cpu", workers=0)
    assert len(out.read_bytes()) > len(first)
    out.write_text("")
    convnextv2.predict(classifier, photos / "red" / "0.png", out=out, device="cpu")
    assert out.read_bytes() == first


def test_a_run_folder_does_not_become_a_class(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    root = shutil.copytree(photos, tmp_path / "photos")
    before = files_in(root)
    monkeypatch.chdir(root)
    for options in (
        ["--data_dir", str(root), "--out", str(root / "run")],
        ["--data_dir", "."],  # `out` is runs/... here then
        ["--data_dir", ".", "--show_images", "first.png"],
    ):
        assert main(["train", *options, *SMALL]) == 2
        assert "would count as a class or as an image" in capsys.readouterr().err
    assert files_in(root) == before


def test_no_verb_writes_into_the_data_of_a_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "run"
    assert main(["train", "--data_dir", str(root), "--out", str(run), *SMALL, "--epochs", "1"]) == 0
    before, inside = files_in(root), root / "red" / "new"
    image = photos / "red" / "0.png"
    capsys.readouterr()
    for words in (
        ["pretrain", "--data_dir", root, "--out", inside, *SMALL],
        ["export", run, "--out", inside],
        ["export", run, "--out", root / "new", "--layout", "triton"],
        ["push", run, "me/model", "--dry_run", "--out", inside],
        ["convert", run, "--to", "timm", "--out", root / "new"],
        ["embed", run, photos, "--out", inside / "e.npy"],
        ["explain", run, image, "--pictures", inside, "--out", tmp_path / "e.html"],
        ["reconstruct", run, image, "--out", inside / "r.png"],
    ):
        assert main(list(map(str, words))) == 2, words
        told = capsys.readouterr().err
        assert "lies in the data" in told and "where it would count as a class" in told, words
    assert files_in(root) == before and not inside.exists()


def test_a_run_folder_may_lie_beside_the_splits(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "data" / "train")
    shutil.copytree(photos, tmp_path / "data" / "val")
    options = ["--data_dir", str(tmp_path / "data"), *SMALL, "--epochs", "1"]
    assert main(["train", *options, "--out", str(tmp_path / "data" / "run")]) == 0
    assert main(["train", *options, "--out", str(tmp_path / "data" / "train" / "run")]) == 2


def test_a_demo_does_not_begin_where_it_could_not_end(tmp_path: Path) -> None:
    (tmp_path / "train" / "cats").mkdir(parents=True)
    with pytest.raises(RunError, match="was not written by a demo"):
        convnextv2.demo(out=tmp_path, quick=True)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_run_in_data_that_do_not_exist_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "typo"
    assert main(["train", "--data_dir", str(data), "--out", str(data / "runs" / "a")]) == 2
    assert f"data_dir = {data}: there is no such folder or file" in capsys.readouterr().err
    assert not data.exists()
