import multiprocessing
import signal
import time
from types import FrameType

import pytest
import torch
from json_answers import read_answer

import convnextv2
from convnextv2.errors import DeviceError, RecipeError
from convnextv2.kernels import choice
from convnextv2.recipe.knobs import Recipe
from convnextv2.verbs import benchmark

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
        ({"models": "giant"}, "models = 'giant': expected some of atto"),
        ({"models": "atto,"}, "models = '': expected some of atto"),
        ({"backends": "tensorrt"}, "backends = 'tensorrt': expected some of eager"),
        ({"seconds": "long"}, "seconds = long: expected a number"),
    ],
)
def test_mistakes_are_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        convnextv2.benchmark(**{**SMALL, **wrong})


def test_an_interrupted_benchmark_does_not_wait_for_the_process_that_measures() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    recipe = Recipe(image_size=64, batch_size=2, device="cpu")
    before, began = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(KeyboardInterrupt):
            benchmark._measure_apart("train", "convnextv2_atto", "", recipe, limit_s=120)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 60 and not multiprocessing.active_children()


def test_a_process_that_is_killed_is_a_failure_of_its_row() -> None:
    """The system kills the process that takes too much memory."""

    def kill(number: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    recipe = Recipe(image_size=64, batch_size=2, device="cpu")
    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    try:
        row = benchmark._measure_apart("train", "convnextv2_atto", "", recipe, limit_s=120)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert row["model"] == "atto" and row["failure"] == "the process ended with status -9"


def test_words_may_have_blanks_and_count_once() -> None:
    assert benchmark._chosen("models", [" atto", "tiny ", "atto"], ["atto", "tiny"]) == [
        "atto",
        "tiny",
    ]


def test_native_kernels_that_cannot_be_built_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "load", lambda: "no C++ compiler found")
    try:
        with pytest.raises(DeviceError, match="kernels = native: no C.. compiler found. Install"):
            convnextv2.benchmark(**SMALL, kernels="native")
    finally:
        choice.choose("auto")


def test_the_loader_is_not_credited_with_images_that_a_short_batch_lacks() -> None:
    recipe = Recipe(
        dataset="bundled", image_size=32, batch_size=64, workers=0, num_samples=100, drop_last=False
    )
    for drop_last, images in ((False, 100), (True, 64)):
        recipe = recipe.model_copy(update={"drop_last": drop_last})
        assert benchmark._loader(recipe, "", "", torch.device("cpu"))[1] == images
