"""Artifacts of a segmentor and of a detector."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import PLACES, THINGS, detector, edited, save_dense, segmentor
from maps import draw_maps
from PIL import Image
from shapes import write_coco

from convnextv2 import export, predict, validate
from convnextv2.cli import main
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.certificate_text import dense_summary
from convnextv2.errors import CheckpointError, ConvNeXtV2Error
from convnextv2.inference.dense import open_finder, open_pixel_classifier
from convnextv2.inference.detector_artifact import build_finder_from_artifact
from convnextv2.inference.pixel_classifier_artifact import build_pixel_classifier_from_artifact
from convnextv2.weights.opened import open_weights
from convnextv2.weights.safetensors import WEIGHTS, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


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
    ours = build_pixel_classifier_from_artifact(artifact)
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
    finder = build_finder_from_artifact(artifact)
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
