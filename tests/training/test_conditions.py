import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from convnextv2.data.source import Source
from convnextv2.distributed import Place
from convnextv2.errors import CheckpointError, RunError
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.conditions import (
    Conditions,
    Fingerprint,
    check_changes,
    check_classes,
    convert_position,
    current_conditions,
    is_before,
    keep_global_batch,
    recipe_then,
)
from convnextv2.training.state import Progress

RECIPE = Recipe(epochs=40, lr=1e-3, batch_size=6, out="a", seed=7)
THEN = Conditions(
    images=96, names_sha256="x", labels_sha256="l", ranks=2, global_batch=12, accumulate=1,
    asked=(6, 1), steps_per_epoch=8, precision="float32", versions={"torch": "2.14"},
)  # fmt: skip


def test_what_does_not_change_the_result_may_change() -> None:
    now = Recipe(epochs=40, lr=1e-3, batch_size=6, seed=7, out="b", resume=True, keep_checkpoints=9)
    assert check_changes(RECIPE, now, THEN, THEN, ()) == [
        "keep_checkpoints: 2 before, 9 from here on"
    ]


@pytest.mark.parametrize(
    ("recipe", "here", "names", "told"),
    [
        ({"seed": 42}, {}, "seed", "seed: 7 before, 42 from here on"),
        ({"lr": 0.1, "mixup": 0.2}, {}, "mixup,lr", "lr: 0.001 before, 0.1 from here on"),
        ({"epochs": 30}, {}, "epochs", "epochs: 40 before, 30 from here on"),
        ({}, {"images": 97}, "images", "training images: 96 before, 97 from here on"),
        ({}, {"names_sha256": "y"}, "images", "the names of the 96 training images"),
        ({}, {"labels_sha256": "m"}, "images", "the labels of the 96 training images"),
        ({}, {"global_batch": 6, "ranks": 1}, "ranks", "images in a step: 12 before, 6"),
        ({"batch_size": 8}, {"global_batch": 16}, "batch_size", "images in a step: 12 before, 16"),
        ({}, {"precision": "bfloat16"}, "precision", "precision: float32 before, bfloat16"),
        ({}, {"steps_per_epoch": 7}, "ranks", "steps in an epoch: 8 before, 7"),
    ],
)
def test_what_changes_the_result_is_refused_unless_allowed_by_name(
    recipe: dict, here: dict, names: str, told: str
) -> None:
    now, conditions = RECIPE.model_copy(update=recipe), replace(THEN, **here)
    with pytest.raises(RunError) as refused:
        check_changes(RECIPE, now, THEN, conditions, ())
    assert told in str(refused.value) and f"--resume_allow {names}." in str(refused.value)
    assert any(
        told in line for line in check_changes(RECIPE, now, THEN, conditions, names.split(","))
    )


def test_kernels_are_those_that_run_and_not_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    source, place = Source(["a/1.png"], np.zeros(1, np.int64), ("a",)), Place(torch.device("cpu"))

    def found() -> str:
        here = current_conditions(RECIPE, place, source, None, torch.float32, 1, (6, 1))
        return here.versions["kernels"]

    choice.choose("auto")
    monkeypatch.setattr(choice, "load", lambda: object())
    assert found() == "native"
    monkeypatch.setattr(choice, "load", lambda: "no C++ compiler found")
    assert found() == "plain"


def test_a_checkpoint_knows_its_recipe_as_it_comes_back_from_json() -> None:
    source, place = Source(["a/1.png"], np.zeros(1, np.int64), ("a",)), Place(torch.device("cpu"))
    recipe = RECIPE.model_copy(update={"betas": (0.8, 0.9), "image_size": (64, 32)})
    here = current_conditions(recipe, place, source, None, torch.float32, 1, (6, 1))
    read = Conditions.read(json.loads(json.dumps(asdict(here))))
    assert recipe_then(recipe, read) == recipe == recipe_then(RECIPE, read)
    assert recipe_then(RECIPE, Conditions()) == RECIPE  # an older checkpoint says nothing


def test_a_checkpoint_knows_its_validation_images() -> None:
    source, place = Source(["a/1.png"], np.zeros(1, np.int64), ("a",)), Place(torch.device("cpu"))
    for validation, images in ((source, 1), (None, 0)):
        here = current_conditions(RECIPE, place, source, validation, torch.float32, 1, (6, 1))
        read = Conditions.read(json.loads(json.dumps(asdict(here))))
        assert read == here and read.validation is not None and read.validation.images == images
    assert Conditions.read({}).validation is None  # an older checkpoint says nothing


@pytest.mark.parametrize(
    ("names", "labels", "told"),
    [
        (["v/a/1", "v/b/2"], [0, 1], ""),
        (["w/a/1", "w/b/2"], [0, 1], ""),  # the folder was moved
        (["v/a/1", "v/b/3"], [0, 1], "the names of the 2 validation images, or their order, have"),
        (["v/a/1", "v/b/2"], [1, 1], "the labels of the 2 validation images have changed"),
        (["v/a/1", "v/b/2"], [[1, 0], [0, 1]], "the labels of the 2 validation images have"),
        (["v/a/1"], [0], "validation images: 2 before, 1 from here on"),
    ],
)
def test_changed_images_are_told_by_their_fingerprint(
    names: list[str], labels: list, told: str
) -> None:
    then = Fingerprint.of(Source(["v/a/1", "v/b/2"], np.array([0, 1]), ("a", "b")))
    now = Fingerprint.of(Source(names, np.array(labels), ("a", "b")))
    found = then.change(now, "validation")
    assert found.startswith(told) and bool(found) == bool(told)


def test_validation_images_that_came_or_went_are_told() -> None:
    some = Fingerprint.of(Source(["v/a/1"], np.array([0]), ("a",)))
    none = Fingerprint.of(None)
    assert some.change(none, "validation") == "validation images: 1 before, 0 from here on"
    assert none.change(some, "validation") == "validation images: 0 before, 1 from here on"
    assert not none.change(none, "validation")


def test_more_epochs_and_other_versions_are_told_and_not_refused() -> None:
    now = RECIPE.model_copy(update={"epochs": 60})
    lines = check_changes(RECIPE, now, THEN, replace(THEN, versions={"torch": "2.15"}), ())
    assert lines[0] == "epochs: 40 before, 60 from here on"
    assert lines[1].startswith("torch: 2.14 before, 2.15 from here on; the last bits")
    assert (
        check_changes(RECIPE, RECIPE, Conditions(), THEN, ()) == []
    )  # an older checkpoint says nothing


@pytest.mark.parametrize(
    ("ranks", "expected"), [(1, (6, 2)), (2, (6, 1)), (3, (4, 1)), (4, (3, 1)), (12, (1, 1))]
)
def test_other_ranks_keep_the_images_of_a_step(ranks: int, expected: tuple[int, int]) -> None:
    fitted = keep_global_batch(RECIPE, RECIPE, THEN, ranks)
    assert (fitted.batch_size, fitted.accumulate) == expected
    assert fitted.batch_size * fitted.accumulate * ranks == 12
    # The next start may have the command of the start, or what recipe.yaml says.
    assert keep_global_batch(fitted, fitted, replace(THEN, ranks=ranks), ranks) == fitted
    assert keep_global_batch(RECIPE, fitted, replace(THEN, ranks=ranks), ranks) == fitted


def test_a_batch_that_was_asked_for_or_cannot_be_divided_stays() -> None:
    other = RECIPE.model_copy(update={"batch_size": 8})
    assert keep_global_batch(other, RECIPE, THEN, 1) == other
    assert keep_global_batch(RECIPE, RECIPE, THEN, 5) == RECIPE


def test_a_position_counts_in_the_batches_that_hold_now() -> None:
    progress = Progress(step=8 * 3 + 5, epoch=3, batch=5)
    convert_position(progress, THEN, replace(THEN, ranks=1, accumulate=2))
    assert (progress.step, progress.batch) == (29, 10)
    convert_position(progress, replace(THEN, accumulate=2), replace(THEN, ranks=4))
    assert (progress.step, progress.batch) == (29, 5)
    # 60 of 96 images were used: three batches of 20 on one rank.
    convert_position(progress, THEN, replace(THEN, global_batch=20, steps_per_epoch=4))
    assert (progress.step, progress.batch) == (4 * 3 + 3, 3)


def test_renamed_classes_are_refused_unless_allowed() -> None:
    check_classes(["a", "b"], ["a", "b"], ())
    with pytest.raises(CheckpointError, match="'b' is now 'c'"):
        check_classes(["a", "b"], ["a", "c"], ())
    check_classes(["a", "b"], ["a", "c"], ("classes",))


def test_records_after_the_position_go() -> None:
    at = Progress(step=10, epoch=2, batch=2, closed=2)
    assert is_before({"kind": "train", "step": 10, "epoch": 2.5}, at, 2.5)
    assert not is_before({"kind": "train", "step": 11, "epoch": 2.75}, at, 2.5)
    # The conditions of an earlier part of the run, which had more steps in an epoch.
    assert is_before({"kind": "train", "step": 14, "epoch": 1.75}, at, 2.5)
    end = Progress(step=8, epoch=2, batch=0, closed=1)
    assert not is_before({"kind": "eval", "step": 8, "epoch": 2}, end, 2.0)
    assert is_before(
        {"kind": "eval", "step": 8, "epoch": 2}, Progress(step=8, epoch=2, closed=2), 2.0
    )
