"""Steps that are not finite, and errors in the middle of an epoch."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from training.bench import SETTINGS, Bench

from convnextv2.errors import DataError, TrainingError
from convnextv2.training.bad_step import BadStep
from convnextv2.training.health import MAX_SKIPPED
from convnextv2.training.state import Progress


def test_an_error_in_the_middle_of_an_epoch_costs_no_step() -> None:
    bench = Bench()

    def damaged(epoch: int, first: int):
        yield from list(bench.batches(epoch, first))[:3]
        raise DataError("7.jpg: is damaged")

    with pytest.raises(DataError):
        bench.fit(batches=damaged)
    assert bench.saves == [3] and bench.progress.batch == 3


def test_what_breaks_inside_of_a_step_is_not_saved() -> None:
    bench = Bench()
    bench.optimizer.step = lambda *_, **__: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(MemoryError):
        bench.fit()
    assert bench.saves == []


def test_a_disk_that_is_full_is_said_beside_what_went_wrong() -> None:
    bench = Bench()

    def full(wait: bool) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError) as error:
        bench.fit(batches=lambda epoch, first: (_ for _ in ()).throw(DataError("x")), save=full)
    assert "No space left on device" in error.value.__notes__[0]


class Poisoned:
    """A loss that is broken at one step: in itself, or only in its gradient."""

    def __init__(self, bench: Bench, steps: range, *, only_gradient: bool) -> None:
        self.bench, self.steps, self.only_gradient = bench, steps, only_gradient

    def __call__(
        self, model: nn.Module, batch: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        loss = self.bench.loss(model, batch, generator)
        if self.bench.progress.step not in self.steps:
            return loss
        if self.only_gradient:  # the derivative of sqrt at 0 is infinite
            return loss + (0 * model.weight.square().sum()).sqrt()
        return loss * float("nan")


@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_step_that_is_not_finite_is_kept_and_not_taken(only_gradient: bool) -> None:
    bench, kept = Bench(), []

    def keep(bad: BadStep) -> str:
        kept.append(bad)
        return "kept.safetensors (a.jpg)"

    what = "the gradient's norm = (nan|inf)" if only_gradient else "loss = nan"
    with pytest.raises(TrainingError, match=rf"{what} at step 7, .*kept\.safetensors \(a\.jpg\)"):
        bench.fit(loss=Poisoned(bench, range(6, 7), only_gradient=only_gradient), keep_bad=keep)
    (bad,) = kept
    assert bad.number == 6 and torch.equal(bad.batches[0], torch.full((2, 3), 11.0))
    assert bench.saves == [5, 6]  # the steps before it are good
    assert torch.isfinite(bench.model.weight).all()

    straight = Bench()
    straight.fit()
    bench.progress = Progress.read(asdict(bench.progress))
    bench.fit()
    assert torch.equal(bench.model.weight, straight.model.weight)
    assert bench.losses() == straight.losses()


def test_a_step_that_is_not_finite_can_be_left_out() -> None:
    bench = Bench()
    bench.fit(
        replace(SETTINGS, skip_bad=True), loss=Poisoned(bench, range(6, 8), only_gradient=False)
    )
    assert bench.progress.step == 15 and torch.isfinite(bench.model.weight).all()
    assert [record["step"] for record in bench.records if record["kind"] == "bad step"] == [7, 8]
    with pytest.raises(TrainingError):  # this many in a row are not an accident
        bench = Bench()
        bench.fit(
            replace(SETTINGS, skip_bad=True),
            loss=Poisoned(bench, range(2, 99), only_gradient=False),
        )
    assert bench.progress.step == 2 + MAX_SKIPPED


def test_an_epoch_without_an_image_ends_the_run() -> None:
    bench = Bench()
    with pytest.raises(DataError, match="epoch 1: none of its images could be read"):
        bench.fit(size=lambda batch: 0)
    assert bench.saves == []  # it is done again where they are back
    some = Bench()
    some.fit(size=lambda batch: int(batch[0, 0]) % 10 == 4)  # one batch of each epoch
    assert some.progress.epoch == SETTINGS.epochs
