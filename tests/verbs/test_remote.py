"""The answers of a server for segmentors and detectors are checked before they are used."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import draw

from convnextv2.data.folders import files
from convnextv2.errors import ServerError
from convnextv2.verbs import remote
from convnextv2.verbs.options.predicting import PredictOptions

OBJECT = {"class": "cat", "score": 0.5, "box": [0, 0, 4, 4]}
MAP = {"height": 8, "width": 8, "classes": [{"class": "cat", "share": 1.0}]}
Finish = Callable[..., Iterator[dict[str, Any]]]


@pytest.mark.parametrize(
    ("finish", "answer"),
    [
        (remote._detected, {}),
        (remote._detected, {"width": 8, "height": 8, "objects": 3}),
        (remote._detected, {"width": 8, "height": 8, "objects": [OBJECT | {"class": "dog"}]}),
        (remote._detected, {"width": 8, "height": 8, "objects": [OBJECT | {"box": ["x"]}]}),
        (remote._segmented, {}),
        (remote._segmented, MAP | {"classes": [1]}),
        (remote._segmented, MAP),
        (remote._segmented, MAP | {"map": {"png": "bm8gUE5H"}}),
    ],
)
def test_what_no_server_of_ours_answers_is_one_line(
    finish: Finish, answer: dict[str, Any], tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    draw(image, 0, 0, (8, 8))
    out = str(tmp_path / "found")
    options = PredictOptions.read({"run": "m", "images": [image], "server": "http://s", "out": out})
    results = iter([{"image": str(image), **answer}])
    with pytest.raises(ServerError, match="http://s: its answer is not that of a convnextv2"):
        list(finish(options, files([image]), results, ["cat"]))
