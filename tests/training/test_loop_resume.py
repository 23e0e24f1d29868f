"""Training that ends early, and its continuation."""

import signal
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from training.bench import SETTINGS, Bench

from convnextv2.training.state import Progress


def scored(bench: Bench, scores: list[float]) -> dict:
    """A keeper and an evaluation that give the epochs these scores."""
    return {
        "evaluate": lambda: {"top1": scores[bench.progress.epoch - 1]},
        "keep_best": lambda figures: bench.progress.take_score(figures["top1"]),
    }


SCORES = [0.1, 0.5, 0.4, 0.3, 0.6, 0.6, 0.2, 0.5, 0.9]
"""Two epochs after the second are no better, and three after the fifth: 0.6 is not above 0.6."""


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 4), (3, 8), (4, 9), (None, 9)], ids=str)
def test_patience_counts_epochs_without_a_better_score(patience: int | None, last: int) -> None:
    bench = Bench()
    bench.fit(replace(SETTINGS, epochs=9, patience=patience), **scored(bench, SCORES))
    assert bench.progress.epoch == last == bench.closed[-1]
    assert [r["epoch"] for r in bench.records if r["kind"] == "eval"] == [*range(1, last + 1)]
    assert bench.saves[-1] == 5 * last


def test_patience_ends_a_run_only_at_an_evaluation_and_saves_its_last_epoch() -> None:
    bench = Bench()
    settings = replace(SETTINGS, epochs=9, patience=3, val_every_epochs=2, save_every_epochs=5)
    bench.fit(settings, **scored(bench, SCORES))
    # Epochs 2, 4, 6 and 8 are evaluated: 0.5, 0.3, 0.6, 0.5, and 9, the last: 0.9. Epoch 5 is three
    # epochs after the best, but who knows how good it is.
    assert bench.progress.epoch == 9
    bench = Bench()
    bench.fit(replace(settings, epochs=12, patience=2), **scored(bench, SCORES))
    assert bench.progress.epoch == 4
    assert bench.saves == [20] and bench.closed[-1] == 4  # no epoch was due to be saved


@pytest.mark.parametrize("stop_after", [3, 6, 7])
def test_patience_continues_to_count_after_a_resume(stop_after: int) -> None:
    bench = Bench()
    settings = replace(SETTINGS, epochs=9, patience=3)
    bench.fit(replace(settings, epochs=stop_after), **scored(bench, SCORES))
    bench.progress = Progress.read(asdict(bench.progress))
    bench.fit(settings, **scored(bench, SCORES))
    assert bench.progress.epoch == 8
    bench.fit(settings, **scored(bench, SCORES))  # there is nothing left to do
    assert bench.progress.epoch == 8 and bench.closed == [*range(1, 9)]
    bench.fit(replace(settings, patience=4), **scored(bench, SCORES))  # the user has more of it now
    assert bench.progress.epoch == 9 and bench.progress.best == 0.9


def test_resume_inside_an_epoch_is_exact() -> None:
    straight = Bench()
    straight.fit()

    halted = Bench()

    def stop_after_seven(record: dict) -> None:
        if halted.progress.step == 8:  # a line comes after the ranks agreed on this step
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        halted.fit(log=stop_after_seven)
    assert halted.saves[-1] == 9 and (halted.progress.epoch, halted.progress.batch) == (1, 4)
    torch.randn(100)  # what ran before must not matter
    halted.fit()
    assert torch.equal(halted.model.weight, straight.model.weight)
    assert torch.equal(halted.average.tensors["weight"], straight.average.tensors["weight"])


@pytest.mark.parametrize("stop_at", [1, 7, 10])
def test_the_log_of_a_resumed_run_is_that_of_a_straight_one(stop_at: int) -> None:
    straight, halted = Bench(), Bench()
    straight.fit(replace(SETTINGS, log_every_steps=4))

    def stop(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if halted.progress.step == stop_at - 1:
            signal.raise_signal(signal.SIGTERM)
        return halted.loss(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        halted.fit(replace(SETTINGS, log_every_steps=4), loss=stop)
    assert halted.progress.step == stop_at
    halted.progress = Progress.read(asdict(halted.progress))
    halted.fit(replace(SETTINGS, log_every_steps=4))
    assert halted.losses() == straight.losses()


def test_an_epoch_is_saved_before_its_evaluation_which_a_resumed_run_makes_up_for() -> None:
    straight, halted = Bench(), Bench()
    straight.fit()

    def fails() -> dict[str, float]:
        if halted.progress.epoch == 2:
            raise OSError("the file server is away")
        return {"top1": 0.5}

    with pytest.raises(OSError, match="file server"):
        halted.fit(evaluate=fails)
    assert halted.saves == [5, 10, 10] and halted.closed == [1]
    assert (halted.progress.epoch, halted.progress.batch, halted.progress.is_closed) == (
        2,
        0,
        False,
    )
    halted.progress = Progress.read(asdict(halted.progress))
    halted.fit()
    assert halted.closed == straight.closed == [1, 2, 3]
    assert halted.losses() == straight.losses()
    assert torch.equal(halted.average.tensors["weight"], straight.average.tensors["weight"])
