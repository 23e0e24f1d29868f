"""Artifacts of a segmentor and of a detector."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense import PLACES, THINGS, detector, picture, save_dense, segmentor
from maps import draw_maps
from PIL import Image
from shapes import write_coco

from convnextv2 import export, predict, validate
from convnextv2.cli import main
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.certificate_text import dense_summary
from convnextv2.errors import ArtifactError, CheckpointError, ConvNeXtV2Error
from convnextv2.inference.dense import open_finder, open_pixel_classifier
from convnextv2.inference.detector_artifact import finder_of_artifact
from convnextv2.inference.pixel_classifier_artifact import pixel_classifier_of_artifact
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import WEIGHTS, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


@pytest.fixture(scope="module")
def dense_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dense")
    return {
        "places": save_dense(segmentor(), root / "places"),
        "things": save_dense(detector(max_detections=375, proposals=400), root / "things"),
    }


@pytest.fixture(scope="module")
def exported_dense(
    dense_weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A function that exports one of the weights. Each artifact is made once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("artifacts")

    def make(name: str, format: str = "onnx", **options) -> Path:
        key = "-".join([name, format, *options])
        if key not in made:
            made[key] = export(
                dense_weights[name],
                format=format,
                out=root / key,
                images=3,
                workers=0,
                seconds=0.0,
                **options,
            )
        return made[key]

    return make


def edited(artifact: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Copy an artifact, and edit the artifact.json of the copy, as a user might by hand.

    The keys of the changes are paths, such as "shapes/class_logits". The value None removes one.
    """
    copy = shutil.copytree(artifact, folder)
    card = json.loads((copy / "artifact.json").read_text())
    for path, value in changes.items():
        *outer, name = path.split("/")
        inner = card
        for each in outer:
            inner = inner[each]
        inner.pop(name) if value is None else inner.update({name: value})
    (copy / "artifact.json").write_text(json.dumps(card))
    return copy


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("photos")
    return [picture(root / f"{i}.png", i, 130 - 40 * i, 90 + 30 * i) for i in range(3)]


def pixels_of(photo: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)


def test_an_artifact_of_any_size_gives_pixels_the_classes_that_the_weights_give(
    dense_weights: dict[str, Path], exported_dense: Callable[..., Path], photos: list[Path]
) -> None:
    artifact = open_artifact(exported_dense("places", dynamic_size=True))
    ours = open_pixel_classifier(artifact.path)
    theirs = open_pixel_classifier(dense_weights["places"], device="cpu", precision="float32")
    for photo in photos:
        expected = theirs(pixels_of(photo))
        assert len(expected.unique()) > 1
        assert (ours(pixels_of(photo)) == expected).double().mean() > 0.999
    card = artifact.card
    assert card.kind == "segmentation" and card.class_names == PLACES
    assert card.shapes["images"] == [None, 3, None, None]
    assert card.segmentation is not None and len(card.segmentation.palette) == len(PLACES)
    assert artifact.certificate["real"]["max_difference"] <= 1e-4 * max(
        1, artifact.certificate["real"]["scale"]
    )
    assert artifact.certificate["pixels"]["equal"] > 0.999


def test_an_artifact_of_a_fixed_size_sees_windows(
    dense_weights: dict[str, Path], exported_dense: Callable[..., Path], photos: list[Path]
) -> None:
    artifact = open_artifact(exported_dense("places"))
    assert artifact.card.shapes["images"] == [None, 3, 64, 96]
    ours = pixel_classifier_of_artifact(artifact)
    model = segmentor()
    seen = []
    wide = pixels_of(photos[2])  # 50 x 150, so that several windows are needed
    with torch.no_grad():
        ours_logits = ours._logits
        ours._logits = lambda images: seen.append(images.shape) or ours_logits(images)
        found = ours(wide)
        images = torch.randn(1, 3, 64, 96)
        assert torch.allclose(ours_logits(images), model(images), atol=1e-4)
    assert sum(shape[0] for shape in seen) > 1
    assert {tuple(shape[1:]) for shape in seen} == {(3, 64, 96)}
    assert found.shape == wide.shape[1:]


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


@pytest.mark.parametrize("name", ["places", "things"])
def test_a_prediction_says_what_it_comes_from_and_under_which_licence(
    exported_dense: Callable[..., Path],
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    pytest.importorskip("onnxruntime")
    copy = edited(exported_dense(name), tmp_path / "copy", {"notice": "for research only"})
    capsys.readouterr()
    predict(copy, [photos[0]])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{copy}: artifact, onnx, float32, sha256 ")
    assert lines[1] == "Licence: for research only"


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


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_an_artifact_finds_the_objects_that_the_weights_find(
    dense_weights: dict[str, Path],
    exported_dense: Callable[..., Path],
    photos: list[Path],
    format: str,
) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}[format])
    artifact = open_artifact(exported_dense("things", format))
    ours = open_finder(artifact.path)
    theirs = open_finder(dense_weights["things"], device="cpu", precision="float32")
    total = 0
    for photo in photos:
        sample = theirs.transform(pixels_of(photo))
        expected, found = theirs(*sample), ours(*sample)
        total += len(expected.scores)
        assert len(expected.scores) == len(found.scores) > 100
        assert np.abs(expected.boxes - found.boxes).max() < 0.1
        assert np.array_equal(expected.labels, found.labels)
        assert found.masks is not None and expected.masks is not None
        same = sum(a == b for a, b in zip(found.masks, expected.masks, strict=True))
        assert same > 0.95 * len(found.masks)
    assert total > 375
    told = artifact.certificate["objects"]
    assert told["largest_shift_px"] < 0.1 and told["found_by_both"] > 0.99 * told["objects"]


def test_a_detector_of_boxes_has_no_part_for_masks_and_may_find_nothing(tmp_path: Path) -> None:
    weights = save_dense(detector(masks=False, score_threshold=0.9999), tmp_path / "weights")
    artifact = open_artifact(
        export(weights, format="torch", out=tmp_path / "made", images=2, workers=0, seconds=0.0)
    )
    assert sorted(artifact.card.files) == ["boxes-model.pt2", "model.pt2"]
    finder = finder_of_artifact(artifact)
    found = finder(*finder.transform(torch.zeros(3, 50, 60, dtype=torch.uint8)))
    assert len(found.scores) == 0 and found.masks is None
    told = dense_summary(artifact.certificate)
    assert re.search(r"^objects +2 images: 0 of 0 are found by both\.$", told, re.MULTILINE)


def test_only_what_was_compared_is_in_the_words_of_a_certificate() -> None:
    speed = {"pytorch_images_per_second": 1.0, "artifact_images_per_second": 2.0, "ratio": 2.0}
    objects = {
        "images": 3,
        "objects": 9,
        "found_by_both": 8,
        "largest_shift_px": 0.0125,
        "largest_score_difference": 0.0031,
        "least_mask_iou": None,
    }
    certificate = {"objects": objects, "speed": speed | {"batch": 1, "threads": 2}}
    told = "8 of 9 are found by both; boxes move by at most 0.013 px, scores by 0.0031"
    assert f"{told}.\n" in dense_summary(certificate)
    certificate["objects"] = objects | {"least_mask_iou": 0.991}
    assert f"{told}; masks overlap by at least 99.10%.\n" in dense_summary(certificate)


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
            lambda: finder_of_artifact(open_artifact(copied)),
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
    ("name", "part", "key", "value", "why"),
    [
        ("things", "arguments", "depths", [1, 1, 10**9, 1], "depths.2 = 1000000000: .* or equal"),
        ("things", "arguments", "dims", [8, 16, 24], "dims has 3 numbers, expected 4"),
        ("things", "arguments", "in_channels", 2, "images has 3 channels for a network of 2"),
        ("things", "detection", "levels", 10**9, "detection.levels: .* less than or equal to 16"),
        ("things", "shapes", "class_logits", [None, 10**9], "shapes.class_logits.1.*less than"),
        ("things", "shapes", "mask_logits", [None] + [10**8] * 3, "mask_logits = .*elements"),
        ("things", "shapes", "images", [None, 3, 10**6, 10**6], "images = .*at most 16,384 px"),
        ("places", "segmentation", "test_scales", [1e9], "test_scales.0: .* less than or equal"),
        ("places", "segmentation", "ignore_values", [10**30], "ignore_values.0: "),
        ("places", "shapes", "images", [None, 3], "shapes.images has 2 axes, expected 4"),
    ],
)
def test_absurd_sizes_in_a_card_are_refused_when_it_is_opened(
    exported_dense: Callable[..., Path],
    tmp_path: Path,
    name: str,
    part: str,
    key: str,
    value: object,
    why: str,
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(exported_dense(name), copied)
    card = json.loads((copied / "artifact.json").read_text())
    card[part][key] = value
    (copied / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ConvNeXtV2Error, match=why) as error:
        open_artifact(copied)
    assert str(error.value).isprintable() and error.value.exit_code == 2


@pytest.mark.parametrize(
    ("part", "values", "why"),
    [
        ("arguments", {"num_classes": 5}, "2 classes, but its head .* 5"),
        ("head", {"finest_stride": 8}, "5 levels .* its head 4"),
        ("head", {"max_detections": "abc"}, "max_detections = 'abc'"),
        ("head", {"rois": 10**9}, r"rois = 1000000000: expected .* >= 1 and <= 100,000\)"),
        ("head", {"proposals": 10**9}, "proposals = 1000000000: expected"),
        ("head", {"max_detections": 10**9}, "max_detections = 1000000000: expected"),
        ("head", {"anchor_scale": 1e300}, r"anchor_scale = 1e\+300: expected"),
    ],
)
def test_a_head_that_does_not_fit_the_artifact_is_refused(
    exported_dense: Callable[..., Path], tmp_path: Path, part: str, values: dict, why: str
) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(exported_dense("things"), copied)
    card = json.loads((copied / "artifact.json").read_text())
    (card if part == "arguments" else card["detection"])[part].update(values)
    (copied / "artifact.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match=why):
        finder_of_artifact(open_artifact(copied))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("places", {"input": "pixels"}, "Use input images"),
        ("places", {"precision": "int8"}, "Use float32"),
        ("things", {"precision": "float16"}, "tenth of a pixel"),
        ("things", {"layout": "triton"}, "Use layout folder"),
        ("things", {"calibrate": True}, "is for classifiers"),
        ("places", {"prior": "uniform"}, "prior"),
    ],
)
def test_what_an_artifact_cannot_be_is_said_in_a_line(
    dense_weights: dict[str, Path], tmp_path: Path, name: str, options: dict, why: str
) -> None:
    with pytest.raises(ConvNeXtV2Error, match=why):
        export(dense_weights[name], out=tmp_path / "out", images=1, workers=0, **options)
    assert not (tmp_path / "out").exists()


def test_images_of_other_classes_are_refused_with_the_reason(
    dense_weights: dict[str, Path], tmp_path: Path
) -> None:
    data = draw_maps(tmp_path / "data", train=1, val=1)
    with pytest.raises(ConvNeXtV2Error, match="class 'background' is not among those of the model"):
        export(dense_weights["places"], data_dir=data, out=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_the_encoder_of_a_segmentor_is_exported_as_a_backbone(
    dense_weights: dict[str, Path], tmp_path: Path
) -> None:
    made = export(
        dense_weights["places"],
        format="torch",
        outputs="backbone",
        out=tmp_path / "made",
        images=1,
        workers=0,
        seconds=0.0,
    )
    card = open_artifact(made).card
    assert card.outputs == ["stage1", "stage2", "stage3", "stage4"]
    assert not card.class_names  # which are those of the segmentor


@pytest.mark.parametrize("dynamic_size", [False, True])
def test_weights_that_do_not_say_how_images_are_prepared_are_refused(
    dynamic_size: bool, dense_weights: dict[str, Path], tmp_path: Path
) -> None:
    opened = open_weights(dense_weights["places"])
    save_weights(tmp_path / "w", opened.tensors, replace(opened.description, preprocessing={}))
    with pytest.raises(CheckpointError, match="does not state the preprocessing of its images"):
        export(tmp_path / "w" / WEIGHTS, dynamic_size=dynamic_size, out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


SMALL = (
    "--model custom --depths 1,1,1,1 --dims 8,16,24,32 --image_size 64 --batch_size 4 --workers 0 "
    "--epochs 1 --precision float32 --device cpu --tensorboard False"
).split()


def test_a_segmentation_run_is_exported_validated_and_used(tmp_path: Path) -> None:
    data, run = draw_maps(tmp_path / "data", train=4, val=2), tmp_path / "run"
    head = ["--task", "segmentation", "--head_channels", "16", "--slide", "True"]
    assert main(["train", "--data_dir", str(data), "--out", str(run), *head, *SMALL]) == 0
    made = export(run, workers=0, seconds=0.0)
    told = open_artifact(made).certificate
    assert told["miou"]["images"] == 2
    theirs, ours = validate(run, device="cpu"), validate(made, device="cpu")
    assert ours.miou == pytest.approx(theirs.miou, abs=1e-3)
    assert told["miou"]["artifact_miou"] == pytest.approx(ours.miou)
    images = [data / "images" / "val"]
    (first, *_), (other, *_) = (
        predict(source, images, device="cpu", precision="float32", out=tmp_path / "out")
        for source in (run, made)
    )
    assert first.keys() == other.keys() >= {"overlay", "index", "classes"}
    assert [one["class"] for one in first["classes"]] == [one["class"] for one in other["classes"]]


def test_a_detection_run_is_exported_validated_and_used(tmp_path: Path) -> None:
    data, run = write_coco(tmp_path / "data", train=4, val=2), tmp_path / "run"
    head = ["--task", "detection", "--fpn_channels", "16", "--box_dim", "32"]
    assert main(["train", "--data_dir", str(data), "--out", str(run), *head, *SMALL]) == 0
    made = export(run, format="torch", workers=0, seconds=0.0)
    told = open_artifact(made).certificate
    assert told["ap"]["images"] == 2
    theirs, ours = validate(run, device="cpu"), validate(made, device="cpu")
    assert ours.main.ap == pytest.approx(theirs.main.ap, abs=1e-3)
    found = predict(made, [data / "images"], device="cpu", threshold=0, out=tmp_path / "out")
    assert found[0]["objects"][0]["class"] in ("disc", "square")
    assert json.loads((tmp_path / "out" / "objects.json").read_text())["annotations"]
    assert {each["class"] for each in found[0]["objects"]} - set(THINGS)
