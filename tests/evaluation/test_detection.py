"""The figures of detectors against pycocotools."""

import contextlib
import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import Objects, ObjectTable
from convnextv2.evaluation.detection import (
    FoundObjects,
    coco_found,
    coco_truth,
    evaluate_objects,
    precision_of,
)

CLASSES = 4


def ellipse(size: tuple[int, int], box: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return ((x - centre[0]) / half[0]) ** 2 + ((y - centre[1]) / half[1]) ** 2 < 1


def scene(seed: int) -> tuple[list[Objects], list[FoundObjects]]:
    """Images with objects, crowds among them, and what a mediocre detector finds there."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for index in range(12):
        size = (int(random.integers(90, 200)), int(random.integers(90, 200)))
        count = 0 if index == 3 else int(random.integers(1, 14))
        sides = np.array(size[::-1])
        low = random.uniform(0, 1, (count, 2)) * (sides - 25)
        high = np.minimum(low + random.uniform(6, 110, (count, 2)), sides)
        boxes = np.concatenate([low, high], axis=1)
        regions = []
        for i, box in enumerate(boxes):
            code = rle.encode(ellipse(size, box))
            corners = np.array([box[[0, 1]], box[[2, 1]], box[[2, 3]], box[[0, 3]]])
            regions.append(code if i % 3 else (corners,))
        labels = random.integers(0, CLASSES - 1, count)  # the last class never occurs
        areas = np.array([rle.area_of(r) if isinstance(r, rle.Rle) else 500.0 for r in regions])
        crowd = random.random(count) < 0.15
        truth.append(Objects(size, boxes, labels, crowd, areas.reshape(count), tuple(regions)))
        kept = random.random(count) < 0.8
        moved = boxes[kept] + random.normal(0, 4, (kept.sum(), 4))
        extra = random.uniform(0, 60, (5, 4)).cumsum(1)
        every = np.concatenate([moved, extra])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 2)
        guessed = np.concatenate([labels[kept], random.integers(0, CLASSES, 5)])
        order = np.argsort(-(scores := random.random(len(every)).round(3)), kind="stable")
        masks = tuple(rle.encode(ellipse(size, every[i])) for i in order)
        found.append(FoundObjects(index, every[order], scores[order], guessed[order], masks))
    return truth, found


def reference(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(truth)
        known.createIndex()
        evaluator = COCOeval(known, known.loadRes(copy.deepcopy(found)), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_those_of_pycocotools(seed: int) -> None:
    truth, found = scene(seed)
    ours = evaluate_objects(truth, found, num_classes=CLASSES, has_masks=True)
    assert ours.objects.sum() == sum((~each.crowd).sum() for each in truth)
    assert any(each.crowd.any() for each in truth)
    for kind, name, one in (("boxes", "bbox", ours.boxes), ("masks", "segm", ours.masks)):
        assert one is not None
        theirs = reference(coco_truth(truth, found, CLASSES, kind), coco_found(found, kind), name)
        stats = theirs.stats
        assert [one.ap, one.ap50, one.ap75] == pytest.approx(stats[:3].tolist(), abs=1e-12)
        for mine, other in zip((*one.by_size, one.recall), (*stats[3:6], stats[8]), strict=True):
            assert (np.isnan(mine) and other == -1) or mine == pytest.approx(other, abs=1e-12)
        precision = theirs.eval["precision"][:, :, :, 0, -1]
        for k in range(CLASSES):
            of_class = precision[:, :, k]
            if (of_class == -1).all():
                assert np.isnan(one.by_class[k]) and k == CLASSES - 1
            else:
                assert one.by_class[k] == pytest.approx(of_class.mean(), abs=1e-12)
                assert one.curves[k] == pytest.approx(of_class[0], abs=1e-12)
        assert 0.05 < one.ap < 0.95


def test_the_log_names_masks_if_there_are_any() -> None:
    truth, found = scene(0)
    both = evaluate_objects(truth, found, num_classes=CLASSES, has_masks=True)
    boxes = evaluate_objects(truth, found, num_classes=CLASSES, has_masks=False)
    assert both.figures()["ap"] == both.masks.ap and both.figures()["box_ap"] == boxes.boxes.ap
    assert boxes.figures().keys() == {"ap", "ap50", "ap75"}
    assert "masks" in both.table() and "masks" not in boxes.table()
    assert both.to_dict()["boxes"]["by_class"][CLASSES - 1] != both.to_dict()["boxes"]["ap"]


def test_everything_right_is_1_and_nothing_found_is_0() -> None:
    truth, _ = scene(1)
    right = [
        FoundObjects(
            i,
            each.boxes[~each.crowd],
            np.linspace(1, 0.5, (~each.crowd).sum()),
            each.labels[~each.crowd],
            None,
        )
        for i, each in enumerate(truth)
    ]
    perfect = evaluate_objects(truth, right, num_classes=CLASSES, has_masks=False).boxes
    assert perfect.ap == perfect.ap50 == perfect.recall == 1
    nothing = [
        replace(each, boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, np.int64))
        for each in right
    ]
    none = evaluate_objects(truth, nothing, num_classes=CLASSES, has_masks=False)
    assert none.boxes.ap == 0 and none.found == 0
    assert np.isnan(none.boxes.by_class[CLASSES - 1]) and none.boxes.by_class[0] == 0


def test_images_without_any_object_have_no_precision() -> None:
    empty = Objects(
        (9, 9), np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), ()
    )
    box = FoundObjects(0, np.array([[1.0, 1, 5, 5]]), np.array([0.9]), np.array([0]), None)
    one = evaluate_objects([empty], [box], num_classes=2, has_masks=False)
    assert np.isnan(one.boxes.ap) and one.found == 1 and "–" in one.table()


def test_images_that_were_left_out_do_not_count() -> None:
    truth, found = scene(2)
    table = ObjectTable(truth)
    some = evaluate_objects(table, found[:5], num_classes=CLASSES, has_masks=False)
    assert some.images == 5
    same = evaluate_objects(truth[:5], found[:5], num_classes=CLASSES, has_masks=False)
    assert some.boxes.ap == same.boxes.ap


def test_crowds_are_neither_right_nor_wrong() -> None:
    truth = {
        "images": [{"id": 1, "height": 50, "width": 50}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [0, 0, 10, 10],
                "area": 100,
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 1,
                "bbox": [20, 20, 30, 30],
                "area": 900,
                "iscrowd": 1,
            },
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    found = [
        {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [25, 25, 8, 8]},
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 10, 10]},
    ]
    assert precision_of(truth, found, 1, "boxes").ap == 1
