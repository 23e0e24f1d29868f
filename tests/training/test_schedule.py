import json
import math
from pathlib import Path

import pytest

from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.read import read_recipe
from convnextv2.training.schedule import build_schedule, cosine_lr, scaled_lr, warmup_lr

FIXTURE = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "mindcv" / "schedules.json").read_text()
)


def test_learning_rate_peaks_when_warmup_ends_and_reaches_the_floor() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2, lr=1e-3, min_lr=1e-5)
    lr_at = build_schedule(recipe, peak=1e-3, floor=1e-5, steps_per_epoch=5)
    assert lr_at(0) == 0
    assert lr_at(5) == pytest.approx(0.5e-3)
    assert lr_at(10) == pytest.approx(1e-3)
    assert lr_at(9) < lr_at(10) > lr_at(11)
    assert lr_at(30) == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2)
    assert lr_at(50) == lr_at(1000) == 1e-5


def test_warmup_starts_at_its_factor_as_in_mindcv() -> None:
    """The values are those of configs/convnextv2/convnextv2_tiny_ascend.yaml.

    1.75e-5 of 2e-3 at step 0, 20 epochs of warm-up, and a cosine over 430 epochs.
    """
    recipe = Recipe(
        epochs=450, warmup_epochs=20, warmup_factor=1.75e-5, decay_epochs=430, lr=2e-3, min_lr=3e-7
    )
    lr_at = build_schedule(recipe, peak=2e-3, floor=3e-7, steps_per_epoch=5)
    assert lr_at(0) == pytest.approx(3.5e-8)
    assert lr_at(50) == pytest.approx(2e-3 * 1.75e-5 + 0.5 * 2e-3 * (1 - 1.75e-5))
    assert lr_at(100) == pytest.approx(2e-3)
    assert lr_at(100 + 215 * 5) == pytest.approx((2e-3 + 3e-7) / 2)


def test_constant_schedule_stays_at_the_peak_after_warmup() -> None:
    lr_at = build_schedule(
        Recipe(schedule="constant", warmup_epochs=1, epochs=3), peak=0.1, floor=0, steps_per_epoch=4
    )
    assert [lr_at(step) for step in (0, 2, 4, 11)] == pytest.approx([0, 0.05, 0.1, 0.1])


def test_warmup_and_cosine_equal_values_computed_by_hand() -> None:
    assert warmup_lr(3, peak=1, warmup_steps=4, factor=0.2) == pytest.approx(0.2 + 0.8 * 0.75)
    assert cosine_lr(1, peak=3, floor=1, decay_steps=4) == pytest.approx(2 + math.cos(math.pi / 4))


def test_linear_rule_scales_lr_only_when_asked() -> None:
    recipe = Recipe(lr=8e-4, min_lr=1e-6, lr_batch_size=1024)
    assert scaled_lr(recipe, 256) == (8e-4, 1e-6)
    assert scaled_lr(recipe.model_copy(update={"scale_lr": True}), 256) == pytest.approx(
        (2e-4, 2.5e-7)
    )


@pytest.mark.parametrize("name", FIXTURE)
def test_every_schedule_is_mindcvs_at_every_step(name: str) -> None:
    case = FIXTURE[name]
    arguments = {
        "epoch_size" if key == "num_epochs" else key: value for key, value in case["args"].items()
    }
    arguments["multi_step_decay_milestones"] = arguments.pop("milestones", (30, 60, 90))
    recipe, _ = read_recipe({"defaults": "mindcv", "model": "convnextv2_tiny"} | arguments)
    lr_at = build_schedule(
        recipe, peak=recipe.lr, floor=recipe.min_lr, steps_per_epoch=case["steps_per_epoch"]
    )
    assert len(case["lr"]) == case["steps_per_epoch"] * recipe.epochs
    assert [lr_at(step) for step in range(len(case["lr"]))] == pytest.approx(
        case["lr"], rel=1e-9, abs=0
    )


def test_a_stair_keeps_the_rate_within_an_epoch() -> None:
    recipe = Recipe(
        schedule="exponential",
        decay_rate=0.5,
        epochs=4,
        warmup_epochs=1,
        lr=1.0,
        lr_epoch_stair=True,
    )
    lr_at = build_schedule(recipe, peak=1.0, floor=0, steps_per_epoch=2)
    assert [lr_at(step) for step in range(8)] == [0, 0, 1, 1, 0.5, 0.5, 0.25, 0.25]
