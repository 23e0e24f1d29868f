import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dense import detector, save_dense, segmentor

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects_geometry import ObjectEvalTransform
from convnextv2.errors import CheckpointError
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.inference.dense import open_finder, open_pixel_classifier
from convnextv2.inference.detector import ObjectFinder, coco_results, padded, paste
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.preprocessing import Preprocessing
from convnextv2.weights.opened import Weights, open_weights


def build_finder(size: tuple[int, int]) -> ObjectFinder:
    torch.manual_seed(0)
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)
    model = Detector(
        encoder, 2, fpn_channels=16, box_dim=32, anchor_scale=4.0, score_threshold=0.0
    ).eval()
    how = Preprocessing(
        size,
        channels=3,
        eval_preset="timm",
        interpolation="bilinear",
        crop_pct=1.0,
        mean=(0.4,) * 3,
        std=(0.2,) * 3,
    )
    transform = ObjectEvalTransform(how)
    return ObjectFinder(model, transform, ["a", "b"], torch.device("cpu"), torch.float32)


def test_what_is_found_is_in_pixels_of_the_original() -> None:
    finder = build_finder((64, 96))
    image = torch.randint(0, 256, (3, 120, 200), dtype=torch.uint8)
    sample = finder.transform(image)
    found = finder(*sample)
    assert sample.pixels.shape[1:] == (58, 96)
    assert len(found.scores) > 10 and found.boxes[:, 2].max() <= 200 + 1e-6
    assert found.boxes[:, 2].max() > 100 and found.boxes[:, 3].max() <= 120 + 1e-6
    assert found.masks is not None and {each.size for each in found.masks} == {(120, 200)}
    assert set(found.labels.tolist()) <= {0, 1}


def test_only_objects_that_are_asked_for_get_a_mask() -> None:
    finder = build_finder((64, 96))
    sample = finder.transform(torch.randint(0, 256, (3, 120, 200), dtype=torch.uint8))
    regions: list[int] = []
    finder.model.roi_heads.mask_head.register_forward_pre_hook(
        lambda _, inputs: regions.append(len(inputs[0]))
    )
    every = finder(*sample)
    middle = float(np.median(every.scores))  # an object with just this score is kept
    few, bare = finder(*sample, threshold=middle), finder(*sample, masks=False)
    none = finder(*sample, threshold=1.1)
    kept = every.scores >= middle
    assert 0 < kept.sum() < len(kept)
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(few, name), getattr(every, name)[kept])
        assert np.array_equal(getattr(bare, name), getattr(every, name))
    assert few.masks is not None and every.masks is not None and bare.masks is None
    assert few.masks == tuple(itertools.compress(every.masks, kept))
    assert len(none.scores) == 0 and none.boxes.shape == (0, 4) and none.masks == ()
    assert regions == [len(kept), kept.sum(), 0]


def test_normalisation_happens_exactly_once() -> None:
    finder = build_finder((64, 64))
    seen = []
    finder.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    finder(torch.full((3, 60, 64), 102, dtype=torch.uint8), (60, 64))
    [images] = seen
    assert images.shape == (1, 3, 64, 64)
    assert torch.allclose(
        images[..., :60, :], torch.zeros(()), atol=1e-5
    )  # (102 / 255 - 0.4) / 0.2
    assert (images[..., 60:, :] == 0).all()
    finder(torch.full((3, 64, 64), 255, dtype=torch.uint8), (64, 64))
    assert torch.allclose(seen[1], torch.tensor(3.0), atol=1e-5)  # (1 - 0.4) / 0.2


def test_masks_are_stretched_over_their_boxes() -> None:
    probs = torch.zeros(28, 28)
    probs[:, :14] = 1
    mask = rle.decode(paste(probs, np.array([10.0, 5.0, 38.0, 33.0]), (40, 60)))
    expected = np.zeros((40, 60), np.uint8)
    expected[5:33, 10:24] = 1
    assert (mask == expected).all()
    mask = rle.decode(paste(torch.ones(28, 28), np.array([-20.0, 20.0, 20.0, 60.0]), (40, 60)))
    assert mask[20:, :20].all() and mask.sum() == 20 * 20
    assert rle.area_of(paste(probs, np.array([5.0, 5.0, 5.0, 9.0]), (40, 60))) == 0


def test_padding_reaches_the_next_multiple() -> None:
    assert padded(torch.ones(1, 3, 33, 64), 32).shape == (1, 3, 64, 64)
    assert padded(torch.ones(1, 3, 32, 64), 32).shape == (1, 3, 32, 64)


def test_results_as_coco_has_them() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:4, 3:6] = 1
    found = FoundObjects(
        0,
        np.array([[3.0, 2, 6, 4], [0, 0, 1, 1]]),
        np.array([0.9, 0.2]),
        np.array([1, 0]),
        (rle.encode(mask), rle.encode(mask)),
    )
    [only] = coco_results(found, 42, [3, 7], threshold=0.5)
    assert (only["image_id"], only["category_id"], only["bbox"], only["score"]) == (
        42, 7, [3.0, 2.0, 3.0, 2.0], pytest.approx(0.9)
    )  # fmt: skip
    assert (rle.decode(rle.Rle(only["segmentation"]["counts"].encode(), (9, 9))) == mask).all()


@pytest.mark.parametrize(
    ("make", "open_it"), [(detector, open_finder), (segmentor, open_pixel_classifier)]
)
def test_weights_that_do_not_say_how_images_are_prepared_are_refused(
    make: Callable[[], torch.nn.Module], open_it: Callable[[Weights], object], tmp_path: Path
) -> None:
    opened = open_weights(save_dense(make(), tmp_path))
    silent = replace(opened, description=replace(opened.description, preprocessing={}))
    with pytest.raises(CheckpointError, match="does not state the preprocessing of its images"):
        open_it(silent)


def test_weights_of_another_kind_are_named_and_refused(tmp_path: Path) -> None:
    opened = open_weights(save_dense(segmentor(), tmp_path))
    with pytest.raises(CheckpointError, match="is a segmentor, which finds no objects. Train a"):
        open_finder(opened)


def test_an_opened_detector_finds_the_same_with_weights_in_the_faster_layout(
    tmp_path: Path,
) -> None:
    model = detector().eval()
    opened = open_weights(save_dense(model, tmp_path))
    finder = open_finder(opened, device="cpu", precision="float32")
    convolutions = [
        each.weight
        for each in finder.model.modules()
        if isinstance(each, torch.nn.Conv2d) and each.weight.shape[1] > 1 < each.kernel_size[0]
    ]
    assert convolutions and all(
        each.is_contiguous(memory_format=torch.channels_last) for each in convolutions
    )
    plain = ObjectFinder(
        model, finder.transform, finder.class_names, torch.device("cpu"), torch.float32
    )
    sample = plain.transform(torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8))
    found, expected = finder(*sample), plain(*sample)
    assert len(expected.scores) > 10
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.labels.tolist() == expected.labels.tolist()
