"""The verb audit end to end: planted faults are found, named and left out of corrected data."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from json_answers import read_answer
from maps import CLASSES, draw_beside, draw_maps
from PIL import Image
from scenes import blurred, save, scene
from shapes import coco_json, draw_shapes

import convnextv2
from convnextv2.auditing.findings import counts_of
from convnextv2.cli import main
from convnextv2.data.dense.map_sources import find_map_sources
from convnextv2.data.dense.object_sources import find_object_sources
from convnextv2.data.sources import find_sources
from convnextv2.distributed import Place
from convnextv2.errors import DataError, RecipeError
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe
from convnextv2.verbs import audit as verb


def kinds(report) -> dict[str, list[str]]:
    """The names of the files of each kind of finding."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).append("/".join(Path(finding.path).parts[-3:]))
    return {kind: sorted(names) for kind, names in found.items()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for split, first, many in (("train", 0, 8), ("val", 100, 3)):
        for k, name in enumerate(("boat", "tree")):
            for i in range(many):
                save(scene(first + 20 * k + i), root / split / name / f"{i}.png")
    return root


def test_faults_are_found_named_and_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "train/boat/cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and nothing more")
    shutil.copy(photos / "train/boat/0.png", photos / "val/boat/leak.png")
    save(scene(1), photos / "val/boat/near.jpg", quality=50)
    shutil.copy(photos / "train/tree/2.png", photos / "train/tree/again.png")
    shutil.copy(photos / "train/boat/3.png", photos / "train/tree/other.png")
    save(Image.new("RGB", (96, 80), (9, 9, 9)), photos / "train/boat/blank.png")
    save(scene(50).point(lambda level: level // 8), photos / "train/boat/dark.png")
    save(scene(51).point(lambda level: 243 + level // 21), photos / "train/boat/bright.png")
    save(blurred(scene(52)), photos / "train/boat/blur.png")
    save(scene(53, (400, 80)), photos / "train/boat/wide.png")
    save(scene(54).resize((12, 10)), photos / "train/boat/tiny.png")
    save(scene(55).convert("L"), photos / "train/boat/grey.png")
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    out = tmp_path / "out"
    assert main(["audit", str(photos), "--out", str(out), "--json"]) == 0
    answer = read_answer("audit", capsys.readouterr().out)
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    record = json.loads((out / "audit.json").read_text())
    found: dict[str, set[str]] = {}
    for each in record["findings"]:
        found.setdefault(each["kind"], set()).add("/".join(Path(each["path"]).parts[-2:]))
    assert found == {
        "unreadable": {"boat/cut.jpg"},
        "leak": {"boat/leak.png", "boat/near.jpg"},
        "contradiction": {"tree/other.png"},
        "duplicate": {"tree/again.png"},
        "dark": {"boat/dark.png"},
        "bright": {"boat/bright.png"},
        "flat": {"boat/blank.png"},
        "blurred": {"boat/blur.png"},
        "odd_shape": {"boat/wide.png"},
        "odd_size": {"boat/tiny.png"},
        "odd_channels": {"boat/grey.png"},
    }
    assert answer["counts"] == record["counts"]
    with open(out / "audit.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(record["findings"])
    page = (out / "audit.html").read_text()
    assert "Leaks between splits" in page and "http" not in page.replace("http-equiv", "").replace(
        "http://www.w3.org", ""
    )
    assert (out / "sheets" / "leak.png").exists()
    training, validation = find_sources(Recipe(data_dir=str(out / "manifest.csv")), labelled=True)
    assert validation is not None
    named = {"/".join(Path(name).parts[-3:]) for name in (*training.names, *validation.names)}
    # For a leak, the validation image stays. Two copies with different labels are both left out.
    gone = {"train/boat/cut.jpg", "train/boat/0.png", "train/boat/1.png", "train/tree/again.png"}
    gone |= {"train/boat/3.png", "train/tree/other.png"}
    listed = {"/".join(path.parts[-3:]) for path in before}
    assert named == listed - gone
    assert answer["corrected"]["images"] == len(named)


def test_clean_data_have_no_findings_and_all_are_listed(photos: Path, tmp_path: Path) -> None:
    report = convnextv2.audit(photos, out=tmp_path / "out")
    assert report.findings == [] and report.corrected.kept == len(report.images) == 22
    assert counts_of(report.findings) == {}
    again = convnextv2.audit(photos, out=tmp_path / "out")  # writes over its own files
    assert again.corrected == report.corrected


def test_three_splits_of_a_table_are_compared(photos: Path, tmp_path: Path) -> None:
    rows = [("path", "label", "split")]
    rows += [(f"train/boat/{i}.png", "boat", "train") for i in range(8)]
    rows += [(f"val/tree/{i}.png", "tree", "test") for i in range(3)]
    rows += [("train/tree/0.png", "tree", "train"), ("train/tree/1.png", "tree", "val")]
    shutil.copy(photos / "train/tree/0.png", photos / "val/tree/0.png")
    table = photos / "list.csv"
    table.write_text("\n".join(map(",".join, rows)))
    report = convnextv2.audit(table, out=tmp_path / "out")
    assert report.summary.splits == {"train": 9, "test": 3, "val": 1}
    assert kinds(report) == {"leak": ["val/tree/0.png"]}
    with open(tmp_path / "out/manifest.csv", newline="") as file:
        left = {(Path(row["path"]).parts[-3], row["split"]) for row in csv.DictReader(file)}
    assert ("val", "test") in left and report.corrected.kept == 12


def test_several_labels_come_back_as_columns(photos: Path, tmp_path: Path) -> None:
    lines = ["path,sky,sea"] + [f"train/boat/{i}.png,{i % 2},{int(i > 3)}" for i in range(8)]
    shutil.copy(photos / "train/boat/7.png", photos / "train/boat/6.png")
    (photos / "several.csv").write_text("\n".join(lines))
    report = convnextv2.audit(photos / "several.csv", out=tmp_path / "out")
    assert counts_of(report.findings) == {"contradiction": 1}  # 6 and 7 differ in sky
    training = find_sources(
        Recipe(data_dir=str(tmp_path / "out/manifest.csv"), val_while_train=False), labelled=True
    )[0]
    assert training.targets is not None and training.class_names == ("sky", "sea")
    expected = [[i % 2, int(i > 3)] for i in range(6)]
    assert training.targets.tolist() == expected


def test_images_without_classes_are_audited_without_labels(tmp_path: Path) -> None:
    for i in range(5):
        save(scene(i), tmp_path / "flat" / f"{i}.png")
    shutil.copy(tmp_path / "flat/0.png", tmp_path / "flat/9.png")
    report = convnextv2.audit(tmp_path / "flat", out=tmp_path / "out")
    assert counts_of(report.findings) == {"duplicate": 1}
    assert any("audited without labels" in line for line in report.images.notes)
    source = find_sources(Recipe(data_dir=str(tmp_path / "out/manifest.csv")), labelled=False)[0]
    assert len(source) == 5


def test_label_maps_are_paired_counted_and_linked(tmp_path: Path) -> None:
    root = draw_maps(tmp_path / "maps")
    for kind, end in (("images", "jpg"), ("annotations", "png")):
        shutil.copy(root / kind / "train" / f"0.{end}", root / kind / "val" / f"leak.{end}")
    (root / "images/train/1.jpg").write_bytes(b"no image")
    report = convnextv2.audit(root, out=tmp_path / "out")
    assert report.images.task == "segmentation"
    assert kinds(report) == {"unreadable": ["images/train/1.jpg"], "leak": ["images/val/leak.jpg"]}
    assert any("cannot be read" in line for line in report.images.defects)
    recipe = Recipe(data_dir=str(root), bad_images="skip")
    training = find_map_sources(recipe, Place(torch.device("cpu")))[0]
    pixels = np.zeros(3, np.int64)
    for index in range(len(training)):
        pixels += np.bincount(training.annotation(index).numpy().ravel(), minlength=3)
    amounts = [each.amounts["train"] for each in report.summary.classes]
    assert amounts == pixels.tolist()
    again, validation = find_map_sources(
        Recipe(data_dir=str(tmp_path / "out/corrected")), Place(torch.device("cpu"))
    )
    assert validation is not None and again.class_names == training.class_names
    assert (len(again), len(validation)) == (6, 4)  # without 1, and 0 stays in val alone


def test_label_maps_beside_their_images_are_audited(tmp_path: Path) -> None:
    root = draw_beside(tmp_path / "maps")
    shutil.copy(root / "train" / "0_jpg.rf.0.jpg", root / "valid" / "leak.jpg")
    shutil.copy(root / "train" / "0_jpg.rf.0_mask.png", root / "valid" / "leak_mask.png")
    report = convnextv2.audit(root, out=tmp_path / "out")
    assert report.images.task == "segmentation" and report.summary.splits == {
        "train": 4,
        "valid": 3,
    }
    assert kinds(report) == {"leak": ["maps/valid/leak.jpg"]}
    assert len(report.images.notes) == len(set(report.images.notes))
    training, validation = find_map_sources(
        Recipe(data_dir=str(report.corrected.path)), Place(torch.device("cpu"))
    )
    assert validation is not None and (len(training), len(validation)) == (3, 3)
    assert training.class_names == CLASSES


def test_training_takes_what_an_audit_leaves_of_label_maps(tmp_path: Path) -> None:
    root = draw_maps(tmp_path / "maps")
    (root / "annotations/train/0.png").unlink()
    smaller = np.asarray(Image.open(root / "annotations/train/1.png"))[:-4]
    Image.fromarray(smaller).save(root / "annotations/train/1.png")
    (root / "annotations/val/2.png").write_bytes(b"no image")
    report = convnextv2.audit(root, out=tmp_path / "out")
    assert report.corrected.dropped == {"without a label map that can be used": 3}
    assert report.corrected.kept == 8
    training, validation = find_map_sources(
        Recipe(data_dir=str(report.corrected.path)), Place(torch.device("cpu"))
    )
    assert validation is not None and (len(training), len(validation)) == (6, 2)


def test_boxes_are_counted_and_written_as_coco(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    drawn = [draw_shapes(root / "images" / f"{i}.png", i) for i in range(6)]
    shutil.copy(root / "images/0.png", root / "images/5.png")
    for split, part in (("train", drawn[:4]), ("val", drawn[4:])):
        (root / f"instances_{split}.json").write_text(json.dumps(coco_json(part)))
    drawn[5].objects = drawn[0].objects
    report = convnextv2.audit(root, out=tmp_path / "out")
    assert report.images.task == "detection"
    assert kinds(report)["leak"] == ["coco/images/5.png"]
    corrected = Recipe(data_dir=str(tmp_path / "out/corrected"), task="detection")
    training, validation = find_object_sources(corrected)
    whole = find_object_sources(Recipe(data_dir=str(root), task="detection"))[0]
    assert validation is not None and len(training) == 3 and len(validation) == 2
    index = [Path(name).name for name in whole.names].index("1.png")
    mine = training.annotation([Path(name).name for name in training.names].index("1.png"))
    assert np.allclose(mine.boxes, whole.annotation(index).boxes)
    assert mine.labels.tolist() == whole.annotation(index).labels.tolist()


def test_training_takes_the_splits_of_objects_that_an_audit_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "coco"
    drawn = [draw_shapes(root / "images" / f"{i}.png", i) for i in range(6)]
    for number, split in enumerate(("a", "b", "c")):
        part = coco_json(drawn[2 * number : 2 * number + 2])
        (root / f"instances_{split}.json").write_text(json.dumps(part))
    report = convnextv2.audit(root, out=tmp_path / "out")
    assert report.images.training_splits() == {"a"}
    assert "so b would not be used" in capsys.readouterr().out
    words = shlex.split(report.corrected.options)
    knobs = {name.lstrip("-"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    training, validation = find_object_sources(
        read_recipe({"data_dir": str(report.corrected.path), **knobs})[0]
    )
    assert validation is not None
    assert [Path(name).name for name in training.names] == ["0.png", "1.png"]
    assert [Path(name).name for name in validation.names] == ["4.png", "5.png"]
    for asked in ("a,b", "d"):
        with pytest.raises(DataError, match=rf"train_split = {asked}: .* has a, b, c\."):
            convnextv2.audit(root, out=tmp_path / "again", train_split=asked)


def test_places_that_would_do_harm_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="whose images are read"):
        convnextv2.audit(photos, out=photos / "audit")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/corrected").write_text("mine")
    with pytest.raises(RecipeError, match="holds no earlier audit"):
        convnextv2.audit(photos, out=tmp_path / "full")
    with pytest.raises(RecipeError, match="is a file"):
        convnextv2.audit(photos, out=tmp_path / "full/corrected")
    with pytest.raises(DataError, match="no such file or folder"):
        convnextv2.audit(tmp_path / "nowhere", out=tmp_path / "out")


def test_one_image_and_none_that_can_be_read(tmp_path: Path) -> None:
    save(scene(0), tmp_path / "one/only/a.png")
    assert convnextv2.audit(tmp_path / "one", out=tmp_path / "a").findings == []
    (tmp_path / "one/only/a.png").write_bytes(b"nothing")
    report = convnextv2.audit(tmp_path / "one", out=tmp_path / "a")
    assert counts_of(report.findings) == {"unreadable": 1} and report.corrected.path is None


def test_data_of_which_nothing_would_be_left_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save(scene(0), tmp_path / "data" / name / "0.png")
    assert convnextv2.audit(tmp_path / "data", out=tmp_path / "out").corrected.path is None
    out = capsys.readouterr().out
    assert "There are no corrected data, since no image would be left: 2 " in out


def test_the_page_names_the_working_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    convnextv2.audit(".", out=tmp_path / "out")
    assert "<title>Audit of photos" in (tmp_path / "out" / "audit.html").read_text()


def test_an_interrupted_audit_leaves_no_folder_and_can_be_repeated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "new" / "audit"
    with monkeypatch.context() as during_the_work, pytest.raises(KeyboardInterrupt):
        during_the_work.setattr(verb, "look_at", interrupt)
        convnextv2.audit(photos, out=out)
    assert not (tmp_path / "new").exists()
    with monkeypatch.context() as while_it_writes, pytest.raises(KeyboardInterrupt):
        while_it_writes.setattr(verb, "write_report", interrupt)
        convnextv2.audit(photos, out=out)
    assert (out / "manifest.csv").exists() and not (out / "audit.html").exists()
    convnextv2.audit(photos, out=out)
    assert json.loads((out / "audit.json").read_text())["images"] == 22
    assert (out / "audit.html").exists()
