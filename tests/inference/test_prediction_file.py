import csv
import json
import os
from pathlib import Path

import pytest
from json_answers import read_answer
from trees import CLASSES

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import RecipeError
from convnextv2.inference.prediction_file import write_predictions

RESULTS = [
    {
        "image": "a, b.jpg",
        "predictions": [{"class": 'say "x"', "prob": 0.75}, {"class": "y", "prob": 0.25}],
    },
    {"image": "c.jpg", "predictions": [{"class": "y", "prob": 1.0}]},
]


def test_csv_has_a_row_for_each_image_and_for_each_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "made.csv"
    write_predictions(path, RESULTS, {"bad.jpg": "is truncated."})
    with open(path, newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "class_1", "prob_1", "class_2", "prob_2", "error"],
            ["a, b.jpg", 'say "x"', "0.75", "y", "0.25", ""],
            ["c.jpg", "y", "1.0", "", "", ""],
            ["bad.jpg", "", "", "", "", "is truncated."],
        ]


def test_a_name_that_is_not_utf8_stays_what_it_is(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    write_predictions(tmp_path / "made.csv", [{"image": name, "predictions": []}], {})
    assert b"caf\xe9.jpg" in (tmp_path / "made.csv").read_bytes()
    write_predictions(tmp_path / "made.jsonl", [{"image": name, "predictions": []}], {})
    assert json.loads((tmp_path / "made.jsonl").read_text())["image"] == name


def test_csv_of_several_labels_has_a_column_for_each_class(tmp_path: Path) -> None:
    label = {"name": "shoe", "score": 0.75, "threshold": 0.5}
    results = [
        {"image": "a.jpg", "labels": [label], "scores": {"shirt": 0.125, "shoe": 0.75}},
        {"image": "b.jpg", "labels": [], "scores": {"shirt": 0.25, "shoe": 0.0}},
    ]
    write_predictions(tmp_path / "made.csv", results, {"c.jpg": "is empty."})
    with open(tmp_path / "made.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "labels", "shirt", "shoe", "error"],
            ["a.jpg", "shoe", "0.125", "0.75", ""],
            ["b.jpg", "", "0.25", "0.0", ""],
            ["c.jpg", "", "", "", "is empty."],
        ]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_predict_writes_what_it_prints(
    weights: Path, pictures: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, out = tmp_path / "bad.jpg", tmp_path / f"made{suffix}"
    bad.write_bytes(b"no image")
    images = [str(pictures / "val" / "ash"), str(bad), str(pictures / "val" / "cedar" / "1.jpg")]
    command = ["predict", str(weights), *images, "--out", str(out), "--bad_images", "skip"]
    assert main([*command, "--json"]) == 0
    told = capsys.readouterr()
    printed = read_answer("predict", told.out)
    assert len(printed) == 7 and f"{bad}: " in told.err and f"Predictions: {out}" in told.err
    text = out.read_text()
    if suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["class_4"] for row in rows[:7]] == [
            one["predictions"][3]["class"] for one in printed
        ]
        assert [float(row["prob_1"]) for row in rows[:7]] == [
            one["predictions"][0]["prob"] for one in printed
        ]
        assert rows[7]["image"] == str(bad) and rows[7]["error"] and not rows[7]["class_1"]
        return
    rows = json.loads(text) if suffix == ".json" else list(map(json.loads, text.splitlines()))
    assert rows[:7] == printed and rows[7]["image"] == str(bad) and not rows[7]["predictions"]
    assert rows[7]["error"]
    assert {one["class"] for one in rows[0]["predictions"]} == set(CLASSES)


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    weights: Path, tmp_path: Path
) -> None:
    for out, complaint in (("made.txt", r"ends in \.csv, \.json, \.jsonl"), ("x.csv", "a folder")):
        if out == "x.csv":
            (tmp_path / out).mkdir()
        with pytest.raises(RecipeError, match=complaint):
            convnextv2.predict(weights, "no-such.jpg", out=tmp_path / out)
