"""Several right answers for an image: files, counting by hand, ranks, and mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import in_ranks

from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.evaluate import Predictions
from convnextv2.evaluation.several_answers import measure_answers, read_answers

CLASSES = ["ash", "birch", "cedar"]
NAMES = ["a/2.jpg", "b/1.jpg", "b/3.jpg", "c/4.jpg", "c/5.jpg"]
EXPECTED = {0: {0, 2}, 1: {1}, 2: set(), 4: {2}}
HERE = Place(torch.device("cpu"))


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.json",
            {"a/2.jpg": ["ash", 2], "1.jpg": ["birch"], "3.jpg": [], "c/5.jpg": ["2"], "x": [0]},
        ),
        ("b.csv", "\ufeffimage;classes\r\n2.jpg;ash|2\r\n1.jpg;1\r\n3.jpg;\r\n5.jpg;2\r\n"),
        ("a.csv", "image,classes\n2.jpg,ash|cedar\nb/1.jpg,birch\n3.jpg,\n5.jpg,cedar\n"),
    ],
)
def test_answers_by_path_or_name(name: str, content: object, tmp_path: Path) -> None:
    assert read_answers(written(tmp_path, name, content), NAMES, CLASSES) == EXPECTED


def test_a_list_is_in_the_order_of_the_file_names(tmp_path: Path) -> None:
    """real.json has this order: its first list belongs to ILSVRC2012_val_00000001.JPEG."""
    path = written(tmp_path, "real.json", [[1], [0, 2], [], [0], [2]])
    assert read_answers(path, NAMES, CLASSES) == EXPECTED | {3: {0}}


def test_the_share_is_that_counted_by_hand() -> None:
    predictions = made([2, 0, 1, 1, 2])
    found = measure_answers(predictions, {i: frozenset(each) for i, each in EXPECTED.items()}, HERE)
    assert found == (2 / 3, 3)  # images 0, 1 and 4 count, and the second is wrong


def made(best: list[int], chosen: slice = slice(None)) -> Predictions:
    indices, classes = np.arange(len(best)), np.array(best)[:, None]
    probs = np.full((len(best), 1), 0.9, np.float32)
    every = (indices, np.zeros(len(best), np.int64), classes, probs)
    return Predictions(*(each[chosen] for each in every))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_counts_the_same(ranks: int) -> None:
    draw = np.random.default_rng(0)
    best = draw.integers(0, 3, 37).tolist()
    answers = {i: frozenset(draw.integers(0, 3, draw.integers(0, 3)).tolist()) for i in range(37)}
    judged = [best[i] in each for i, each in answers.items() if each]
    found = in_ranks(
        ranks,
        lambda place: measure_answers(made(best, slice(place.rank, None, ranks)), answers, place),
    )
    assert found == [(sum(judged) / len(judged), len(judged))] * ranks


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"z.jpg": [0]}, "names none of the 5 images, such as a/2.jpg"),
        ({"2.jpg": ["birhc"]}, "'birhc' is not a class of the model. Did you mean 'birch'"),
        ({"2.jpg": [7]}, "7 is not a class of the model. Expected a name, or a number below 3"),
        ([[0]], "has 1 lists of classes for 5 images"),
        ("nonsense", "cannot be read"),
        ({"2.jpg": 1}, "1 is not a list"),
        ({"2.jpg": "ash"}, "'ash' is not a list"),
    ],
)
def test_mistakes_are_one_line(content: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why) as error:
        read_answers(written(tmp_path, "a.json", content), NAMES, CLASSES)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "missing.csv", NAMES, CLASSES)
    with pytest.raises(DataError, match="columns image and classes"):
        read_answers(written(tmp_path, "b.csv", "x,y\n1,2\n"), NAMES, CLASSES)
    long = f"image,classes\n2.jpg,{'x' * 200_000}\n"
    for file in (written(tmp_path, "c.csv", long), tmp_path / "deep.json"):
        (tmp_path / "deep.json").write_text("[" * 50_000)
        with pytest.raises(DataError, match="cannot be read as right classes"):
            read_answers(file, NAMES, CLASSES)


def test_a_name_may_hold_any_line_end(tmp_path: Path) -> None:
    text = 'image,classes\n"a\u2028b.jpg",ash\n"c\nd.jpg",birch\n'
    names = ["a\u2028b.jpg", "c\nd.jpg"]
    assert read_answers(written(tmp_path, "a.csv", text), names, CLASSES) == {0: {0}, 1: {1}}
