import math
import re

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from convnextv2.errors import DataError
from convnextv2.evaluation.segmentation import (
    SegmentationEvaluation,
    count_pixels,
    summarise,
)
from convnextv2.evaluation.segmentation_sections import segmentation_sections

NAMES = ("a", "b", "c", "d", "e")


def drawn(images: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Maps and predictions of different sizes. Class 3 is only predicted, class 4 is nowhere."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(images):
        size = (9 + i, 13 - i)
        targets = torch.randint(-1, 3, size, generator=generator, dtype=torch.int16)
        noise = torch.randint(0, 4, size, generator=generator, dtype=torch.int16)
        keep = torch.rand(size, generator=generator) < 0.5
        found.append((targets, torch.where(keep & (targets >= 0), targets, noise)))
    return found


def evaluated(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> SegmentationEvaluation:
    counts = sum(count_pixels(targets, predicted, 5) for targets, predicted in pairs)
    return summarise(counts, len(pairs), NAMES)


def test_figures_are_those_of_sets_of_pixels() -> None:
    """By the definition, with no histogram: intersections and unions over the whole data set."""
    pairs = drawn()
    found = evaluated(pairs)
    targets = np.concatenate([pair[0].numpy().ravel() for pair in pairs])
    predicted = np.concatenate([pair[1].numpy().ravel() for pair in pairs])
    targets, predicted = targets[targets >= 0], predicted[targets >= 0]
    expected = []
    for k in range(5):
        union = ((targets == k) | (predicted == k)).sum()
        inter = ((targets == k) & (predicted == k)).sum()
        expected.append(inter / union if union else math.nan)
    np.testing.assert_allclose(found.iou, expected)
    assert expected[3] == 0 and math.isnan(expected[4])
    assert found.miou == pytest.approx(np.nanmean(expected))
    assert found.classes_counted == 4
    assert found.accuracy == pytest.approx((targets == predicted).mean())
    recalls = [(predicted[targets == k] == k).mean() for k in range(3)]
    assert found.mean_accuracy == pytest.approx(np.mean(recalls))


def test_figures_equal_those_of_torchmetrics() -> None:
    pairs = drawn()
    jaccard = MulticlassJaccardIndex(5, average=None, ignore_index=-1)
    accuracy = MulticlassAccuracy(5, average="micro", ignore_index=-1)
    for targets, predicted in pairs:
        for metric in (jaccard, accuracy):
            metric.update(predicted.long().flatten(), targets.long().flatten())
    found = evaluated(pairs)
    np.testing.assert_allclose(found.iou[:4], jaccard.compute()[:4], rtol=1e-6)
    assert found.accuracy == pytest.approx(float(accuracy.compute()))


def test_a_class_counts_over_all_images_and_not_image_by_image() -> None:
    right, wrong = torch.zeros(1, 10, dtype=torch.int16), torch.ones(1, 10, dtype=torch.int16)
    pairs = [(right, right)] * 9 + [(right[:, :1], wrong[:, :1])]
    assert evaluated(pairs).iou[0] == pytest.approx(90 / 91)


def test_confusions_are_sorted_by_pixels() -> None:
    confusion = np.zeros((5, 5), np.int64)
    confusion[0, 0], confusion[0, 2], confusion[1, 0] = 50, 7, 9
    found = SegmentationEvaluation(1, NAMES, confusion)
    assert found.confusions() == [(1, 0, 9), (0, 2, 7)]
    answer = found.to_dict()
    assert answer["confusions"][0] == {"class": "b", "predicted": "a", "pixels": 9}
    assert answer["classes"][4] == {"name": "e", "iou": None, "recall": None, "pixels": 0}
    assert "mIoU" in found.table() and "e " not in found.table()


def test_long_names_do_not_widen_the_table() -> None:
    names = ("a", "escalator;moving;staircase;moving;stairway")
    table = SegmentationEvaluation(1, names, np.array([[3, 1], [2, 5]])).table()
    assert "escalator;moving;staircase;mo..." in table
    assert max(len(line) for line in table.splitlines()[1:]) < 70


def test_maps_without_any_class_are_an_error() -> None:
    nothing = torch.full((3, 3), -1, dtype=torch.int16)
    with pytest.raises(DataError, match="no pixel"):
        evaluated([(nothing, torch.zeros_like(nothing))])


def test_a_class_without_pixels_has_no_recall_in_the_table() -> None:
    counts = torch.tensor([[3, 1], [0, 0]])  # the model finds the second class, which is not there
    table = summarise(counts, 1, ("sky", "road")).table()
    assert "nan" not in table
    assert table.splitlines()[-1].split() == ["road", "0.00%", "–", "0.00%"]


def test_the_page_shows_that_a_rare_class_has_pixels() -> None:
    confusion = torch.tensor([[99_997, 0, 0], [3, 0, 0], [0, 0, 0]])
    found = summarise(confusion, 1, ("ground", "tree", "car"))
    (classes, *_) = segmentation_sections(found, [], 3)
    cells = re.findall(r'scope="row">(\w+)</th><td class="n">([^<]+)</td>', str(classes.content))
    assert dict(cells) == {"ground": "100.00%", "tree": "&lt;0.01%"}
