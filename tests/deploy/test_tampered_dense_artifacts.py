"""Artifacts of a segmentor and of a detector that somebody has changed are refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dense import edited

from convnextv2 import predict
from convnextv2.cli import main
from convnextv2.deploy.artifact import open_artifact
from convnextv2.errors import ArtifactError, ConvNeXtV2Error
from convnextv2.inference.detector_artifact import build_finder_from_artifact

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("places", {"shapes/pixel_logits": [None]}, "shapes.pixel_logits has 1 axes, expected 4"),
        (
            "places",
            {
                "shapes/pixel_logits": [None, 2, 16, 24],
                "class_names": ["sky", "road"],
                "segmentation/palette": [[0, 0, 0], [9, 9, 9]],
            },
            r"returns pixel_logits of shape \(\d, 3, 16, 24\), but artifact.json says \(\d, 2, 16",
        ),
        ("places", {"arguments/stem_stride": 10**9}, "stem_stride = 1000000000: input should be"),
        ("things", {"shapes/class_logits": None}, "shapes does not name class_logits"),
        ("things", {"shapes/mask_regions": None}, "shapes does not name mask_regions"),
        (
            "things",
            {"shapes/class_logits": [None, 9]},
            "shapes.class_logits has 9 columns, expected 3 for 2 class_names",
        ),
        (
            "things",
            {"files/boxes-model.onnx": None},
            "artifact.json names no boxes-model.onnx, a part of the model",
        ),
        (
            "things",
            {"files/masks-model.onnx": None},
            "artifact.json names no masks-model.onnx, a part of the model",
        ),
    ],
)
def test_a_card_that_was_edited_wrongly_is_one_line(
    exported_dense: Callable[..., Path],
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    pytest.importorskip("onnxruntime")
    copy = edited(exported_dense(name), tmp_path / "copy", changes)
    capsys.readouterr()
    assert main(["predict", str(copy), str(photos[0])]) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err) and not printed.out
    assert "Traceback" not in printed.err


def test_parts_that_changed_places_are_one_line(
    exported_dense: Callable[..., Path], photos: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    files = json.loads((exported_dense("things") / "artifact.json").read_text())["files"]
    boxes, masks = "boxes-model.onnx", "masks-model.onnx"
    copy = edited(
        exported_dense("things"),
        tmp_path / "copy",
        {f"files/{boxes}": files[masks], f"files/{masks}": files[boxes]},
    )
    (copy / boxes).rename(copy / "other")
    (copy / masks).rename(copy / boxes)
    (copy / "other").rename(copy / masks)
    with pytest.raises(ArtifactError, match="onnx fails on the input box_regions of shape"):
        predict(copy, [photos[0]])


def test_each_file_of_a_detector_is_checked(
    exported_dense: Callable[..., Path], tmp_path: Path
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(exported_dense("things"), copied)
    for name in ("masks-model.onnx", "boxes-model.onnx", "model.onnx"):
        before = (copied / name).read_bytes()
        (copied / name).write_bytes(before + b" ")
        for use in (
            lambda: open_artifact(copied).check(),
            lambda: build_finder_from_artifact(open_artifact(copied)),
        ):
            with pytest.raises(ArtifactError, match=f"{name} does not match its SHA-256"):
                use()
        (copied / name).write_bytes(before)
    open_artifact(copied).check()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("kind", "segmentation", "segmentation does not fit"),
        ("detection", None, "detection does not fit"),
        ("outputs", ["map1"], "outputs are not those"),
        ("class_names", ["cat"], "2 colours and 1 class_names"),
    ],
)
def test_a_card_that_was_edited_wrongly_is_refused(
    exported_dense: Callable[..., Path], tmp_path: Path, key: str, value: object, why: str
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(exported_dense("things"), copied)
    card = json.loads((copied / "artifact.json").read_text())
    (copied / "artifact.json").write_text(json.dumps(card | {key: value}))
    with pytest.raises(ArtifactError, match=why):
        open_artifact(copied)


@pytest.mark.parametrize(
    ("name", "key", "value", "why"),
    [
        ("things", "arguments/depths", [1, 1, 10**9, 1], "depths.2 = 1000000000: .* or equal"),
        ("things", "arguments/dims", [8, 16, 24], "dims has 3 numbers, expected 4"),
        ("things", "arguments/in_channels", 2, "images has 3 channels for a network of 2"),
        ("things", "detection/levels", 10**9, "detection.levels: .* less than or equal to 16"),
        ("things", "shapes/class_logits", [None, 10**9], "shapes.class_logits.1.*less than"),
        ("things", "shapes/mask_logits", [None] + [10**8] * 3, "mask_logits = .*elements"),
        ("things", "shapes/images", [None, 3, 10**6, 10**6], "images = .*at most 16,384 px"),
        ("places", "segmentation/test_scales", [1e9], "test_scales.0: .* less than or equal"),
        ("places", "segmentation/ignore_values", [10**30], "ignore_values.0: "),
        ("places", "shapes/images", [None, 3], "shapes.images has 2 axes, expected 4"),
    ],
)
def test_absurd_sizes_in_a_card_are_refused_when_it_is_opened(
    exported_dense: Callable[..., Path],
    tmp_path: Path,
    name: str,
    key: str,
    value: object,
    why: str,
) -> None:
    copy = edited(exported_dense(name), tmp_path / "copy", {key: value})
    with pytest.raises(ConvNeXtV2Error, match=why) as error:
        open_artifact(copy)
    assert str(error.value).isprintable() and error.value.exit_code == 2


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("arguments/num_classes", 5, "2 classes, but its head .* 5"),
        ("detection/head/finest_stride", 8, "5 levels .* its head 4"),
        ("detection/head/max_detections", "abc", "max_detections = 'abc'"),
        ("detection/head/rois", 10**9, r"rois = 1000000000: expected .* >= 1 and <= 100,000\)"),
        ("detection/head/proposals", 10**9, "proposals = 1000000000: expected"),
        ("detection/head/max_detections", 10**9, "max_detections = 1000000000: expected"),
        ("detection/head/anchor_scale", 1e300, r"anchor_scale = 1e\+300: expected"),
    ],
)
def test_a_head_that_does_not_fit_the_artifact_is_refused(
    exported_dense: Callable[..., Path], tmp_path: Path, key: str, value: object, why: str
) -> None:
    copy = edited(exported_dense("things"), tmp_path / "copy", {key: value})
    with pytest.raises(ArtifactError, match=why):
        build_finder_from_artifact(open_artifact(copy))
