from pathlib import Path

import pytest
import torch
from json_answers import read_answer

import convnextv2
from convnextv2.errors import ConvNeXtV2Error, DeviceError, RecipeError
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs import benchmark, plan

SMALL = {"models": "atto", "image_size": 64, "batch_size": 2, "seconds": 0, "device": "cpu"}


def test_rows_have_rates_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    bigger = SMALL | {"image_size": 160, "batch_size": 8}
    rows = convnextv2.benchmark(["pretrain", "inference"], backends="eager", json=True, **bigger)
    assert [(row["work"], row["model"], row["backend"]) for row in rows] == [
        ("pretrain", "atto", "eager"),
        ("inference", "atto", "eager"),
    ]
    assert all(row["images_per_second"] > 0 and row["memory_mib"] > 0 for row in rows)
    # AdamW's moments and the gradients are in the step's memory, and not in that of inference.
    assert rows[0]["memory_mib"] > rows[1]["memory_mib"]
    told = capsys.readouterr()
    assert "images/s" in told.err and read_answer("benchmark", told.out) == rows


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"works": ["fly"]}, "works = 'fly': expected some of pretrain"),
        ({"models": "giant"}, "models = 'convnextv2_giant': expected some of"),
        ({"backends": "tensorrt"}, "backends = 'tensorrt': expected some of eager"),
        ({"seconds": "long"}, "seconds = long: expected a number"),
    ],
)
def test_mistakes_are_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        convnextv2.benchmark(**{**SMALL, **wrong})


def test_native_kernels_that_cannot_be_built_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "load", lambda: "no C++ compiler found")
    try:
        with pytest.raises(DeviceError, match="kernels = native: no C.. compiler found. Install"):
            convnextv2.benchmark(**SMALL, kernels="native")
    finally:
        choice.choose("auto")


def test_plan_measures_the_recipe_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"epochs": 3, "num_samples": 512, "workers": 0, "device": "cpu"}
    small |= {"batch_size": "auto", "global_batch": 128}
    figures = convnextv2.plan(config="demo_pretrain", probe_seconds=1, json=True, **small)
    assert figures["verb"] == "pretrain" and figures["steps"] == 3 * (512 // 128)
    assert (
        figures["images_per_second"] > 0 and figures["memory_gib"] > 0.1 and figures["disk_gib"] > 0
    )
    told = capsys.readouterr()
    assert "3 epochs, 12 steps" in told.err and read_answer("plan", told.out) == figures


def test_the_pace_is_of_all_images_over_all_time_after_what_was_prefetched() -> None:
    """Batches of 8 come four at a time: three steps of 0.1 s after one that waits for 3.7 s."""
    burst = [{"images_per_second": 8 / 3.7, "data_wait": 0.99}] + [
        {"images_per_second": 80.0, "data_wait": 0.0}
    ] * 3
    ready = [{"images_per_second": 1.0, "data_wait": 0.5}] + [
        {"images_per_second": 80.0, "data_wait": 0.0}
    ] * 8
    records = [record | {"step": step} for step, record in enumerate(ready + burst * 5, 1)]
    sizes = {"batch_size": 8, "accumulate": 1, "batches_per_epoch": 10**6, "prefetched": 8}
    figures = plan.pace(records, **sizes)
    assert figures["measured"] == 20
    assert figures["images_per_second"] == pytest.approx(8.0)
    assert figures["seconds_per_step"] == pytest.approx(1.0)
    assert figures["data_wait"] == pytest.approx(0.99 * 3.7 / 4)
    assert plan.pace(records[:2], **sizes)["measured"] == 1


def test_the_pace_knows_the_short_step_at_an_epochs_end() -> None:
    records = [{"step": step, "images_per_second": 10.0, "data_wait": 0.0} for step in range(1, 6)]
    figures = plan.pace(records, batch_size=10, accumulate=2, batches_per_epoch=3, prefetched=0)
    # Steps 2 and 4 are of one batch.
    assert figures["images_per_second"] == pytest.approx(10.0) and figures[
        "seconds_per_step"
    ] == pytest.approx(1.5)


def test_the_loader_is_not_credited_with_images_that_a_short_batch_lacks() -> None:
    recipe = Recipe(
        dataset="bundled", image_size=32, batch_size=64, workers=0, num_samples=100, drop_last=False
    )
    for drop_last, images in ((False, 100), (True, 64)):
        recipe = recipe.model_copy(update={"drop_last": drop_last})
        assert benchmark._loader(recipe, "", "", torch.device("cpu"))[1] == images


def test_plan_passes_on_what_the_run_would_say(tmp_path: Path) -> None:
    with pytest.raises(
        ConvNeXtV2Error,
        match="took no step that could be measured: data_dir = .*nowhere: no such folder",
    ):
        convnextv2.plan("train", config="small_data", data_dir=tmp_path / "nowhere")
