"""The communication of ranks while they train."""

import signal
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from training.bench import SETTINGS, Bench

from convnextv2.distributed import Place
from convnextv2.errors import DataError, Stopped, TrainingError


@pytest.mark.parametrize(
    ("error", "saves"),
    [(DataError("a bad image"), []), (TrainingError("not finite"), [3])],
    ids=str,
)
def test_an_error_of_one_rank_starts_no_save_that_all_ranks_would_have_to_join(
    error: Exception, saves: list[int]
) -> None:
    bench = Bench()

    def fail(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if bench.progress.step == 3:
            raise error
        return bench.loss(model, batch, generator)

    with pytest.raises(type(error)) as caught:
        bench.fit(loss=fail, needs_all_ranks=True)
    assert bench.saves == saves
    notes = getattr(caught.value, "__notes__", [])
    assert any("saved by all ranks together" in note for note in notes) == (not saves)


class Talker(Place):
    """One of two ranks of which both know the same. It counts how often they talk."""

    talks = 0

    def sum(self, counts: torch.Tensor) -> torch.Tensor:
        Talker.talks += 1
        return 2 * counts


def test_ranks_with_accelerators_do_not_talk_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Talker, "talks", 0)
    on_cpu, straight = Bench(), Bench()
    straight.fit()
    settings = replace(SETTINGS, log_every_steps=1000)
    on_cpu.fit(settings, place=Talker(torch.device("cpu"), 0, 2))
    assert Talker.talks >= 15 + 3  # each step, and at the end of an epoch
    Talker.talks = 0
    on_device = Bench()
    on_device.fit(settings, place=Talker(torch.device("cuda", 0), 0, 2))
    # After the first and the last step, and twice at the end of each of three epochs.
    assert Talker.talks <= 2 + 2 * 3
    assert torch.equal(on_device.model.weight, straight.model.weight)
    lines = [record for record in on_device.records if record["kind"] == "epoch"]
    assert [record["last_loss"] for record in lines] == [
        record["last_loss"] for record in straight.records if record["kind"] == "epoch"
    ]


def test_ranks_with_accelerators_stop_within_about_a_second() -> None:
    bench, asked = Bench(), []

    def slow(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        time.sleep(0.12)
        if bench.progress.step == 2:
            asked.append(time.monotonic())
            signal.raise_signal(signal.SIGTERM)
        return bench.loss(model, batch, generator)

    with pytest.raises(Stopped):
        bench.fit(
            replace(SETTINGS, log_every_steps=1000, epochs=90),
            loss=slow,
            place=Talker(torch.device("cuda", 0), 0, 2),
        )
    assert time.monotonic() - asked[0] < 5
    assert bench.saves[-1] == bench.progress.step
