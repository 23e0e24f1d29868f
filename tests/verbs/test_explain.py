"""`explain`: pages about images and about data, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from json_answers import read_answer
from PIL import Image
from runs import SMALL, draw
from sklearn.metrics.pairwise import cosine_similarity
from trees import PREPROCESSING, network, save

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import CheckpointError, DataError, RecipeError

HOW = {"device": "cpu", "precision": "float32", "workers": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explain") / "photos"
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(8):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
            draw(root / "val" / name / f"{i}.png", colour, 100 + 10 * colour + i)
    # Mistakes that any classifier of colours must make.
    shutil.move(root / "val" / "red" / "0.png", root / "val" / "blue" / "red.png")
    shutil.move(root / "val" / "green" / "0.png", root / "val" / "red" / "green.png")
    return root


@pytest.fixture(scope="module")
def trained(photos: Path) -> Path:
    out = photos.parent / "run"
    options = ["--data_dir", str(photos), "--out", str(out), *SMALL, "--epochs", "8"]
    assert main(["train", *options, "--lr", "0.01"]) == 0
    return out


def asked(run: Path, *more: object) -> list[str]:
    fixed = ["explain", str(run), "--device", "cpu", "--precision", "float32", "--workers", "0"]
    return [*fixed, *map(str, more)]


def test_images_get_maps_on_a_page_and_as_pictures(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "maps"
    images = [photos / "val" / "red" / "3.png", photos / "val" / "blue" / "red.png"]
    more = ("--out", page, "--pictures", folder, "--json", "--patch_px", 16, "--step_px", 16)
    assert main(asked(trained, *images, *more)) == 0
    found = read_answer("explain", capsys.readouterr().out)
    probs = [each["predictions"][0] for each in convnextv2.predict(trained, images, **HOW)]
    for each, best in zip(found["images"], probs, strict=True):
        assert each["target"] == best["class"] and each["prob"] == pytest.approx(best["prob"])
        assert np.shape(each["activation"]) == (2, 2)
        assert np.mean(each["activation"]) + each["offset"] == pytest.approx(
            each["logit"], rel=1e-4
        )
    made = sorted(path.name for path in folder.iterdir())
    assert made == [
        "000-3-activation.png",
        "000-3-occlusion.png",
        "001-red-activation.png",
        "001-red-occlusion.png",
    ]
    with Image.open(folder / made[0]) as picture:
        assert picture.size == (64, 64)
    text = page.read_text()
    assert text.count("Why red?") == 4 and "http" not in text.replace("http-equiv", "")
    assert found["page"] == str(page) and found["mistakes"] == []


def test_a_class_and_a_class_against_it_can_be_named(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    image = photos / "val" / "red" / "3.png"
    more = ("--target", "blue", "--against", "green", "--out", page)
    assert main(asked(trained, image, *more)) == 0
    assert "Why blue, not green?" in page.read_text()


def test_data_get_a_map_and_the_most_confident_mistakes_with_their_neighbours(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(asked(trained, "--out", page, "--neighbours", 2, "--json")) == 0
    found = read_answer("explain", capsys.readouterr().out)
    files = sorted((photos / "val").glob("*/*.png"))
    answers = convnextv2.predict(trained, files, **HOW)
    wrong = {
        str(path): answer["predictions"][0]
        for path, answer in zip(files, answers, strict=True)
        if answer["predictions"][0]["class"] != path.parent.name
    }
    assert {each["image"] for each in found["mistakes"]} == set(wrong)
    assert {"blue/red.png", "red/green.png"} <= {"/".join(p.split("/")[-2:]) for p in wrong}
    confidence = [each["prob"] for each in found["mistakes"]]
    assert confidence == sorted(confidence, reverse=True)
    embedded = {}
    for split in ("train", "val"):
        out = tmp_path / f"{split}.npy"
        convnextv2.embed(trained, [photos / split], out=out, **HOW)
        embedded[split] = np.load(out)
    training = sorted((photos / "train").glob("*/*.png"))
    for each in found["mistakes"]:
        best = wrong[each["image"]]
        assert each["answer"] == best["class"] and each["prob"] == pytest.approx(best["prob"])
        assert each["target"] == Path(each["image"]).parent.name
        row = embedded["val"][files.index(Path(each["image"]))]
        similarity = cosine_similarity(row[None], embedded["train"])[0]
        nearest = [training.index(Path(near["image"])) for near in each["nearest"]]
        assert len(set(nearest)) == 2
        assert [near["class"] for near in each["nearest"]] == [
            training[i].parent.name for i in nearest
        ]
        told = [near["similarity"] for near in each["nearest"]]
        np.testing.assert_allclose(told, similarity[nearest], atol=1e-4)
        # Two images may be equally near, up to rounding; either may come first.
        np.testing.assert_allclose(told, np.sort(similarity)[:-3:-1], atol=1e-4)
    text = page.read_text()
    assert 'id="map"' in text and 'id="mistakes"' in text and "blue/red.png" not in text


def test_a_pre_training_run_gets_the_map_alone(photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for i, path in enumerate(sorted((photos / "train").glob("*/*.png"))):
        shutil.copy(path, bare / f"{i}.png")
    out = str(tmp_path / "pre")
    options = ["--data_dir", str(bare), "--out", out, *SMALL, "--epochs", "1"]
    assert main(["pretrain", *options, "--decoder_dim", "8"]) == 0
    page = tmp_path / "page.html"
    assert main(asked(Path(out), "--out", page)) == 0
    text = page.read_text()
    assert 'id="map"' in text and 'id="mistakes"' not in text and "24 images, placed" in text
    assert main(asked(Path(out), "--out", page, "--data_dir", photos)) == 0
    assert "colour of the class" in page.read_text()
    with pytest.raises(CheckpointError, match="has no classifier whose answer"):
        convnextv2.explain(out, [photos / "val" / "red" / "3.png"], out=page, **HOW)


def test_what_cannot_be_read_is_left_out_or_ends_it(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, page = tmp_path / "bad.png", tmp_path / "page.html"
    bad.write_bytes(b"no image")
    good = photos / "val" / "red" / "3.png"
    assert main(asked(trained, good, bad, "--out", page)) == 0
    assert "bad.png" in capsys.readouterr().out
    assert main(asked(trained, good, bad, "--out", page, "--bad_images", "fail")) == 2
    with pytest.raises(DataError, match="no image can be read"):
        convnextv2.explain(trained, [bad], out=page, **HOW)


def test_mistakes_in_the_options_are_one_line(photos: Path, trained: Path, tmp_path: Path) -> None:
    image, page = photos / "val" / "red" / "3.png", tmp_path / "page.html"
    with pytest.raises(RecipeError, match=r"target = pink: expected one of the classes \(blue, "):
        convnextv2.explain(trained, [image], target="pink", out=page)
    with pytest.raises(RecipeError, match="against = red: is the target itself"):
        convnextv2.explain(trained, [image], target="red", against="red", out=page)
    with pytest.raises(RecipeError, match="target = red: is for single images"):
        convnextv2.explain(trained, target="red", out=page)
    with pytest.raises(RecipeError, match="pictures = .*maps: is for single images"):
        convnextv2.explain(trained, pictures=str(tmp_path / "maps"), out=page)
    with pytest.raises(RecipeError, match="patch_px = 8: is for single images"):
        convnextv2.explain(trained, patch_px=8, out=page)
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="pictures = .*file: is a file. Give a folder."):
        convnextv2.explain(trained, [image], pictures=str(tmp_path / "file"), out=page, **HOW)
    with pytest.raises(RecipeError, match="is a folder"):
        convnextv2.explain(trained, [image], out=tmp_path)
    with pytest.raises(RecipeError, match="patch_px = 0"):
        convnextv2.explain(trained, [image], patch_px=0, out=page)
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    (other / "val" / "red").rename(other / "val" / "pink")
    (other / "train" / "red").rename(other / "train" / "pink")
    with pytest.raises(DataError, match="class 'pink': 1 of 3 classes of the data are not among"):
        convnextv2.explain(trained, data_dir=other, out=page, **HOW)
    made = tmp_path / "artifact"
    convnextv2.export(trained, out=made, format="torch", seconds=0.05)
    with pytest.raises(CheckpointError, match="is an artifact"):
        convnextv2.explain(made, [image], out=page)


def test_options_about_labelled_images_are_named_where_single_images_are_explained(
    photos: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--out", tmp_path / "page.html", "--data_dir", tmp_path / "none", "--mistakes", 3)
    assert main(asked(trained, photos / "val" / "red" / "3.png", *more)) == 0
    said = capsys.readouterr().out
    assert "No effect here: data_dir, mistakes (only the named images are explained)." in said


def test_images_that_were_all_trained_on_show_no_mistakes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, page = str(photos / "train"), tmp_path / "run", tmp_path / "page.html"
    options = ["--data_dir", data, "--out", str(out), *SMALL, "--epochs", "1"]
    assert main(["train", *options, "--val_while_train", "False"]) == 0
    for more in ([], ["--data_dir", data]):
        assert main(asked(out, "--out", page, *more)) == 0
        said = capsys.readouterr().out
        assert "There are no validation images, so mistakes are not shown." in said
        assert "are wrong" not in said
        with pytest.raises(DataError, match="The run was trained on all of them."):
            convnextv2.probe(out, **HOW)


def test_several_labels_are_explained_one_at_a_time(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, page = save(network(), tmp_path / "w", kind="multi_label"), tmp_path / "page.html"
    image = photos / "val" / "red" / "3.png"
    more = (image, "--target", "cedar", "--out", page, "--json", "--patch_px", 32, "--step_px", 32)
    assert main(asked(weights, *more)) == 0
    (found,) = read_answer("explain", capsys.readouterr().out)["images"]
    assert found["target"] == "cedar"
    assert found["prob"] == pytest.approx(1 / (1 + np.exp(-found["logit"])), rel=1e-4)
    with pytest.raises(RecipeError, match="any number of labels"):
        convnextv2.explain(weights, data_dir=photos, out=page, **HOW)


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_other_channels_and_one_class_are_explained(
    channels: int, tmp_path: Path
) -> None:
    how = {"channels": channels, "mean": [0.5] * channels, "std": [0.2] * channels}
    model = network(in_channels=channels, num_classes=1)
    weights = save(
        model,
        tmp_path / "w",
        class_names=["ash"],
        preprocessing=PREPROCESSING | how | {"image_size": [64, 96]},
    )
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, channels)).astype(np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    page = tmp_path / "page.html"
    options = {"patch_px": 32, "step_px": 32}
    convnextv2.explain(weights, [tmp_path / "image.npy"], out=page, **options, **HOW)
    assert "Why ash?" in page.read_text()
