import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.dense import rle
from convnextv2.data.folders import files
from convnextv2.data.source import Source
from convnextv2.errors import RecipeError
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.inference.object_predictions import ObjectFolder


def found(index: int = 0) -> FoundObjects:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 1
    return FoundObjects(
        index,
        np.array([[10.0, 10, 30, 20], [0, 0, 5, 5]]),
        np.array([0.9, 0.3]),
        np.array([1, 0]),
        (rle.encode(mask), rle.encode(mask)),
    )


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.new("RGB", (60, 40), "black").save(tmp_path / folder / "x.png")
    return files([tmp_path / "a", tmp_path / "b"], max_pixels=10**6)


def test_pictures_and_json_of_a_folder(tmp_path: Path, source: Source) -> None:
    folder = ObjectFolder(tmp_path / "out", ["cat", "dog"], source.names)
    for index in range(2):
        answer = {"image": source.names[index], "width": 60, "height": 40}
        folder.add(answer, found(index), source)
    content = json.loads(folder.close().read_text())
    assert [each["file_name"] for each in content["images"]] == list(source.names)
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in content["annotations"]] == [
        (1, 1, 2), (2, 1, 1), (3, 2, 2), (4, 2, 1)
    ]  # fmt: skip
    assert content["annotations"][0]["area"] == 200
    picture = np.asarray(Image.open(tmp_path / "out" / "x.png"))
    assert picture.shape == (240, 360, 3)  # six times as large, so that words have room
    inside, outside = picture[90, 120], picture[200, 300]
    assert inside.max() > 60 and outside.max() == 0
    assert (tmp_path / "out" / "x-2.png").is_file()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, source: Source) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RecipeError, match="cannot be made a folder"):
        ObjectFolder(tmp_path / "out", ["cat"], source.names)
