"""Runs that end at a given time."""

import math
from pathlib import Path

import pytest
import torch

from convnextv2.cli import main
from convnextv2.distributed import Place
from convnextv2.durations import duration, read_duration
from convnextv2.errors import TrainingError
from convnextv2.training.deadline import Deadline
from convnextv2.training.state import Progress

STEPS = 10


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def deadline_of(seconds: float, clock: Clock, progress: Progress | None = None) -> Deadline:
    progress, place = progress or Progress(), Place(torch.device("cpu"))
    return Deadline(
        seconds, progress, place, steps_per_epoch=STEPS, peak=1.0, floor=0.1, clock=clock
    )


def train(deadline: Deadline, clock: Clock, epoch_s: float, eval_s: float = 0.0) -> None:
    """Go through an epoch as the loop does."""
    progress = deadline._progress
    clock.now += epoch_s
    progress.step, progress.epoch = progress.step + STEPS, progress.epoch + 1
    deadline.plan_remaining_epochs(5000)
    clock.now += eval_s
    deadline.close_epoch(eval_s)


def run(deadline: Deadline, clock: Clock, epoch_s: list[float], eval_s: float = 0.0) -> int:
    """Go through all epochs, and return how many there were."""
    progress = deadline._progress
    while progress.epoch < deadline.epochs:
        train(deadline, clock, epoch_s[min(progress.epoch, len(epoch_s) - 1)], eval_s)
    return progress.epoch


@pytest.mark.parametrize(
    ("epoch_s", "eval_s"),
    [([10.0], 0.0), ([10.0], 3.0), ([25.0, 10.0], 0.0), ([10.0] * 20 + [15.0], 1.0)],
)
def test_a_run_ends_within_half_an_epoch_of_its_time(epoch_s: list[float], eval_s: float) -> None:
    clock = Clock()
    began = clock.now
    run(deadline_of(600, clock), clock, epoch_s, eval_s)
    # The loop is followed by an evaluation for the report, and 3 s for writing it.
    taken = clock.now - began + eval_s + 3
    assert abs(taken - 600) <= epoch_s[-1] / 2 + eval_s


def test_the_rate_warms_up_in_the_first_epoch_and_ends_at_the_floor() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(200, clock, progress)
    rates = []
    while progress.epoch < deadline.epochs:
        rates += [deadline.lr_at(progress.step + i) for i in range(STEPS)]
        train(deadline, clock, 10)
    assert rates[:STEPS] == sorted(rates[:STEPS]) and max(rates) == rates[STEPS] == 1.0
    assert rates[STEPS:] == sorted(rates[STEPS:], reverse=True)
    steps = len(rates) - STEPS
    # With an even pace, the curve is one cosine over all steps after the first epoch.
    for i in range(steps):
        assert rates[STEPS + i] == pytest.approx(0.55 + 0.45 * math.cos(math.pi * i / steps))


def test_a_changed_pace_bends_the_cosine_but_never_breaks_it() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(300, clock, progress)
    before = after = 0.0
    for epoch_s in [10.0] * 8 + [20.0] * 20:
        if progress.epoch >= deadline.epochs:
            break
        clock.now += epoch_s
        progress.step, progress.epoch = progress.step + STEPS, progress.epoch + 1
        before = deadline.lr_at(progress.step)
        deadline.plan_remaining_epochs(5000)
        after = deadline.lr_at(progress.step)
        assert after == pytest.approx(before)  # the rate at this very step does not jump
        deadline.close_epoch(0.0)
    assert deadline.lr_at(progress.step) == pytest.approx(0.1)


def test_a_resumed_run_has_the_time_that_is_left() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(300, clock, progress)
    for _ in range(10):
        train(deadline, clock, 10)
    rates = [deadline.lr_at(step) for step in range(100, 110)]
    clock.now += 5000  # the process was away
    again = deadline_of(300, clock, Progress(**vars(progress)))
    assert [again.lr_at(step) for step in range(100, 110)] == rates
    assert run(again, clock, [10.0]) == deadline.epochs


def test_a_run_that_is_stopped_in_an_epoch_loses_neither_time_nor_pace() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(300, clock, progress)
    for _ in range(5):
        train(deadline, clock, 10)
    clock.now, progress.step = clock.now + 4, progress.step + 4
    deadline.record_elapsed()
    planned = deadline.epochs
    clock.now += 5000  # the process was away
    again = deadline_of(300, clock, Progress(**vars(progress)))
    assert again.left() == pytest.approx(300 - 54)
    clock.now, again._progress.step = clock.now + 6, again._progress.step + 6
    again._progress.epoch += 1
    again.plan_remaining_epochs(5000)
    assert again.epochs == planned


def test_a_run_that_is_stopped_in_its_first_epoch_goes_on_measuring_it() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(100, clock, progress)
    clock.now, progress.step = clock.now + 6, 6
    deadline.record_elapsed()
    clock.now += 5000
    again = deadline_of(100, clock, Progress(**vars(progress)))
    clock.now += 4
    again._progress.step, again._progress.epoch = STEPS, 1
    again.plan_remaining_epochs(5000)
    assert again.epochs == 1 + round((100 - 10 - 3) / 10)


def test_a_first_epoch_after_which_no_second_one_fits_is_refused() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(12, clock, progress)
    clock.now, progress.step, progress.epoch = clock.now + 10, STEPS, 1
    with pytest.raises(TrainingError, match="takes about 10s here, and a run has at least 2"):
        deadline.plan_remaining_epochs(5000)


def test_a_time_in_which_two_epochs_do_not_fit_is_refused_early() -> None:
    clock, progress = Clock(), Progress()
    deadline = deadline_of(100, clock, progress)
    clock.now, progress.step = clock.now + 30, 3
    message = r"time = 1m40s: an epoch of 5,000 images takes about 1m40s here"
    with pytest.raises(TrainingError, match=message):
        deadline.check_first_epoch(5000)
    patient = deadline_of(300, clock, progress)
    patient.check_first_epoch(5000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("15", 900), ("1.5h", 5400)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds
    assert read_duration(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "30x", "-5m", "1m2h", "five", "1e400m", "9999999d"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        read_duration(text)


def test_time_is_checked_with_what_it_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data_dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*command, "--time", "soon"]) == 2
    assert "time = 'soon': expected a duration such as 30m" in capsys.readouterr().err
    assert main([*command, "--time", "5m", "--schedule", "step"]) == 2
    assert "Set schedule = cosine" in capsys.readouterr().err
