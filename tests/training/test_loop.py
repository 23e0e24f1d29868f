import math
import signal
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from convnextv2.distributed import Place
from convnextv2.errors import DataError, Stopped, TrainingError
from convnextv2.training.bad_step import BadStep
from convnextv2.training.ema import WeightAverage
from convnextv2.training.health import MOST_SKIPPED
from convnextv2.training.loop import Loop, in_groups
from convnextv2.training.pace import Pace, is_due
from convnextv2.training.state import Progress
from convnextv2.training.task import Examined

PLACE = Place(torch.device("cpu"))
PACE = Pace(
    epochs=3,
    batches_per_epoch=5,
    batch_size=2,
    accumulate=1,
    clip_norm=None,
    log_every_steps=2,
    val_every_epochs=1,
    save_every_epochs=1,
    seed=1,
    autocast=torch.float32,
)


class Bench:
    """A tiny regression with noise from the generator that the loop passes in.

    A wrong seed thus changes the result.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.AdamW([{"params": self.model.parameters(), "lr_scale": 1.0}])
        self.average = WeightAverage(self.model, 0.9)
        self.progress = Progress()
        self.records: list[dict] = []
        self.saves: list[int] = []
        self.closed: list[int] = []

    def losses(self) -> list[tuple]:
        """What the log says, without the times."""
        names = ("kind", "step", "epoch", "loss", "last_loss", "top1")
        return [tuple(record.get(name) for name in names) for record in self.records]

    @staticmethod
    def batches(epoch: int, first: int):
        for i in range(first, 5):
            yield torch.full((2, 3), float(10 * epoch + i))

    @staticmethod
    def loss(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(batch.shape, generator=generator) + torch.rand(
            batch.shape
        )  # explicit and default generator
        return (model(batch / 10 + noise) - 1).square().mean()

    def fit(self, pace: Pace = PACE, **changes) -> None:
        parts = {
            "batches": self.batches,
            "loss": self.loss,
            "size": lambda batch: 1,
            "evaluate": lambda: {"top1": 0.5},
            "log": self.records.append,
            "save": lambda wait: self.saves.append(self.progress.step),
            "close_epoch": lambda: self.closed.append(self.progress.epoch),
            "keep_best": lambda figures: None,
            "keep_bad": lambda bad: "",
            "needs_all_ranks": False,
        }
        own = {name: changes.pop(name) for name in list(changes) if name in parts}
        parts = SimpleNamespace(**(parts | own), score="top1")
        parts.loader = Loader(parts.batches)
        arguments = {
            "pace": pace,
            "optimizer": self.optimizer,
            "lr_at": lambda step: 0.1,
            "average": self.average,
            "scaler": torch.amp.GradScaler("cpu", enabled=False),
            "progress": self.progress,
            "place": PLACE,
        }
        Loop(self.model, parts, parts, **(arguments | changes)).run()


class Loader:
    """The loader of a task, from a function that returns the batches of an epoch."""

    source = ()

    def __init__(self, batches) -> None:
        self.batches, self.patience = batches, SimpleNamespace(stop_asked=None)

    def __len__(self) -> int:
        return 0  # an epoch is never cut short


def test_loop_logs_evaluates_and_saves_when_due() -> None:
    bench = Bench()
    bench.fit(replace(PACE, val_every_epochs=2))
    assert [r["step"] for r in bench.records if r["kind"] == "train"] == [
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        15,
    ]
    assert [r["epoch"] for r in bench.records if r["kind"] == "eval"] == [2, 3]
    assert bench.saves == [5, 10, 15]
    assert {"loss", "lr", "images_per_second", "data_wait"} <= bench.records[0].keys()


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
    bench.fit(replace(PACE, epochs=9, patience=patience), **scored(bench, SCORES))
    assert bench.progress.epoch == last == bench.closed[-1]
    assert [r["epoch"] for r in bench.records if r["kind"] == "eval"] == [*range(1, last + 1)]
    assert bench.saves[-1] == 5 * last


def test_patience_ends_a_run_only_at_an_evaluation_and_saves_its_last_epoch() -> None:
    bench = Bench()
    pace = replace(PACE, epochs=9, patience=3, val_every_epochs=2, save_every_epochs=5)
    bench.fit(pace, **scored(bench, SCORES))
    # Epochs 2, 4, 6 and 8 are evaluated: 0.5, 0.3, 0.6, 0.5, and 9, the last: 0.9. Epoch 5 is three
    # epochs after the best, but who knows how good it is.
    assert bench.progress.epoch == 9
    bench = Bench()
    bench.fit(replace(pace, epochs=12, patience=2), **scored(bench, SCORES))
    assert bench.progress.epoch == 4
    assert bench.saves == [20] and bench.closed[-1] == 4  # no epoch was due to be saved


@pytest.mark.parametrize("stop_after", [3, 6, 7])
def test_patience_continues_to_count_after_a_resume(stop_after: int) -> None:
    bench = Bench()
    pace = replace(PACE, epochs=9, patience=3)
    bench.fit(replace(pace, epochs=stop_after), **scored(bench, SCORES))
    bench.progress = Progress.read(asdict(bench.progress))
    bench.fit(pace, **scored(bench, SCORES))
    assert bench.progress.epoch == 8
    bench.fit(pace, **scored(bench, SCORES))  # there is nothing left to do
    assert bench.progress.epoch == 8 and bench.closed == [*range(1, 9)]
    bench.fit(replace(pace, patience=4), **scored(bench, SCORES))  # the user has more of it now
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
    straight.fit(replace(PACE, log_every_steps=4))

    def stop(model: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if halted.progress.step == stop_at - 1:
            signal.raise_signal(signal.SIGTERM)
        return halted.loss(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        halted.fit(replace(PACE, log_every_steps=4), loss=stop)
    assert halted.progress.step == stop_at
    halted.progress = Progress.read(asdict(halted.progress))
    halted.fit(replace(PACE, log_every_steps=4))
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


def test_accumulation_equals_the_joint_batch() -> None:
    data = torch.randn(4, 6, 3)

    def trained(batches: list[torch.Tensor], accumulate: int) -> torch.Tensor:
        bench = Bench()
        pace = replace(PACE, epochs=1, batches_per_epoch=len(batches), accumulate=accumulate)
        bench.fit(
            pace,
            batches=lambda epoch, first: iter(batches),
            loss=lambda model, batch, generator: model(batch).square().mean(),
        )
        return bench.model.weight

    assert torch.allclose(
        trained(list(data.flatten(0, 1).split(6)), 1),
        trained(list(data.flatten(0, 1).split(3)), 2),
        atol=1e-6,
    )


def test_a_short_last_group_is_averaged_over_its_own_length() -> None:
    assert [len(group) for group in in_groups(range(5), 2)] == [2, 2, 1]
    bench = Bench()
    bench.fit(replace(PACE, accumulate=2))
    assert bench.progress.step == 9


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
    bench.fit(replace(PACE, skip_bad=True), loss=Poisoned(bench, range(6, 8), only_gradient=False))
    assert bench.progress.step == 15 and torch.isfinite(bench.model.weight).all()
    assert [record["step"] for record in bench.records if record["kind"] == "bad step"] == [7, 8]
    with pytest.raises(TrainingError):  # this many in a row are not an accident
        bench = Bench()
        bench.fit(
            replace(PACE, skip_bad=True), loss=Poisoned(bench, range(2, 99), only_gradient=False)
        )
    assert bench.progress.step == 2 + MOST_SKIPPED


def test_a_batch_without_images_is_a_batch_that_teaches_nothing() -> None:
    def batches(epoch: int, first: int):
        for i, batch in enumerate(Bench.batches(epoch, first), start=first):
            yield batch[:0] if i in (1, 2) else batch

    bench, halted = Bench(), Bench()
    pace = replace(PACE, accumulate=2)
    bench.fit(pace, batches=batches, size=len)
    assert bench.progress.step == 9
    assert all(math.isfinite(record["loss"]) for record in bench.records if "loss" in record)
    with pytest.raises(Stopped):
        halted.fit(
            pace, batches=batches, size=len, log=lambda record: signal.raise_signal(signal.SIGTERM)
        )
    assert halted.progress.step == 3
    halted.fit(pace, batches=batches, size=len)
    assert torch.equal(halted.model.weight, bench.model.weight)


def test_checkpoints_by_steps_and_by_the_clock() -> None:
    by_steps, by_clock = Bench(), Bench()
    by_steps.fit(replace(PACE, save_every_steps=4))
    assert by_steps.saves == [4, 5, 8, 10, 12, 15]
    by_clock.fit(replace(PACE, save_every_s=0.0))
    assert by_clock.saves == sorted([*range(1, 16), 5, 10, 15])
    assert torch.equal(by_clock.model.weight, by_steps.model.weight)


def test_clipping_bounds_the_update() -> None:
    def change(clip_norm: float | None) -> float:
        bench = Bench()
        bench.optimizer = torch.optim.SGD(
            [{"params": bench.model.parameters(), "lr_scale": 1.0}], lr=1.0
        )
        before = bench.model.weight.detach().clone()
        bench.fit(
            replace(PACE, epochs=1, batches_per_epoch=1, clip_norm=clip_norm),
            batches=lambda e, f: iter([torch.full((2, 3), 50.0)]),
            lr_at=lambda s: 1.0,
        )
        return (bench.model.weight - before).norm().item()

    assert change(0.01) <= 0.01 < change(None)


def test_lr_scale_multiplies_the_schedule() -> None:
    bench = Bench()
    seen = []
    bench.optimizer = torch.optim.SGD(
        [
            {"params": [bench.model.weight], "lr_scale": 0.5},
            {"params": [bench.model.bias], "lr_scale": 1.0},
        ],
        lr=1.0,
    )
    bench.fit(replace(PACE, epochs=1), lr_at=lambda step: seen.append(step) or 0.1 * (step + 1))
    assert seen == [0, 1, 2, 3, 4]
    assert [group["lr"] for group in bench.optimizer.param_groups] == pytest.approx([0.25, 0.5])


def test_is_due_at_multiples_and_at_the_end() -> None:
    assert [n for n in range(1, 8) if is_due(n, every=3, last=7)] == [3, 6, 7]


def test_an_epoch_without_an_image_ends_the_run() -> None:
    bench = Bench()
    with pytest.raises(DataError, match="epoch 1: none of its images could be read"):
        bench.fit(size=lambda batch: 0)
    assert bench.saves == []  # it is done again where they are back
    some = Bench()
    some.fit(size=lambda batch: int(batch[0, 0]) % 10 == 4)  # one batch of each epoch
    assert some.progress.epoch == PACE.epochs


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
    pace = replace(PACE, log_every_steps=1000)
    on_cpu.fit(pace, place=Talker(torch.device("cpu"), 0, 2))
    assert Talker.talks >= 15 + 3  # each step, and at the end of an epoch
    Talker.talks = 0
    on_device = Bench()
    on_device.fit(pace, place=Talker(torch.device("cuda", 0), 0, 2))
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
            replace(PACE, log_every_steps=1000, epochs=90),
            loss=slow,
            place=Talker(torch.device("cuda", 0), 0, 2),
        )
    assert time.monotonic() - asked[0] < 5
    assert bench.saves[-1] == bench.progress.step


def test_a_deadline_is_told_what_an_examination_took_and_nothing_of_other_epochs() -> None:
    told, examined = [], []

    def examine(epoch: int, last: int) -> list[Examined]:
        examined.append((epoch, last))
        if epoch != 2:
            return []
        time.sleep(0.05)
        return [Examined({"kind": "health", "dead": 0.0}, ["all is well"])]

    nothing = {"note": lambda: None, "check_first_epoch": lambda images: None}
    deadline = SimpleNamespace(
        epochs=3,
        left=lambda: 0.0,
        line=lambda: "",
        close_training=lambda images: None,
        close_epoch=told.append,
        **nothing,
    )
    bench = Bench()
    bench.fit(replace(PACE, val_every_epochs=99), examine=examine, deadline=deadline)
    assert examined == [(epoch, 3) for epoch in range(4)]
    assert told[0] == 0 and told[1] >= 0.05
    (record,) = [r for r in bench.records if r["kind"] == "health"]
    assert record == {"kind": "health", "step": 10, "epoch": 2, "dead": 0.0}
