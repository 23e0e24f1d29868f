from pathlib import Path

import pytest
import torch

from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.announce import announcements, overlap_line, scratch_line
from convnextv2.training.start import Way

CPU = Place(torch.device("cpu"))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (
            {"decay_epochs": 100, "epochs": 50, "lr": 1.0},
            "needs 100 epochs, but 50 follow the warm-up, so lr ends at 0.5",
        ),
        ({"decay_epochs": 100, "epochs": 100}, ""),
        (
            {"decay_epochs": 20, "num_cycles": 2, "epochs": 50, "warmup_epochs": 20},
            "the cosine needs 40 epochs",
        ),
        ({"decay_epochs": 100, "epochs": 50, "schedule": "step"}, ""),
        ({"epochs": 50}, ""),
    ],
)
def test_a_cosine_that_is_cut_short_is_told(knobs: dict, told: str) -> None:
    recipe = Recipe(**knobs)
    lines = [
        line
        for line in announcements(recipe, 64, recipe.lr, torch.float32, CPU)
        if line.startswith("decay_epochs")
    ]
    assert len(lines) == bool(told) and told in "".join(lines)


def test_validation_images_that_are_trained_on_are_told() -> None:
    training, apart = Source(["a.jpg", "b.jpg", "c.jpg"]), Source(["d.jpg"])
    assert overlap_line(training, None) == overlap_line(training, apart) == ""
    line = overlap_line(training, Source(["d.jpg", "c.jpg", "b.jpg"]))
    assert line.startswith("2 of 3 validation images are training images too, for example b.jpg.")


def test_one_folder_of_two_names_holds_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").symlink_to("train")
    training = Source([f"{tmp_path}/train/a.jpg"])
    for folder in ("val", "train/../train"):
        assert overlap_line(training, Source([f"{tmp_path}/{folder}/a.jpg"]))
        assert not overlap_line(training, Source([f"{tmp_path}/{folder}/b.jpg"]))


def test_random_weights_are_told_with_an_accuracy_only_to_those_who_classify() -> None:
    assert "79.2 %" in scratch_line(Way.SCRATCH, 24)
    line = scratch_line(Way.SCRATCH, 24, classifies=False)
    assert "24 images. `--init RUN`" in line and "%" not in line
    assert scratch_line(Way.SCRATCH, 50_000) == scratch_line(Way.WEIGHTS, 24) == ""
