import math
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from training.bench import SETTINGS, Bench

from convnextv2.errors import Stopped
from convnextv2.training.loop_settings import is_due
from convnextv2.training.steps import in_groups
from convnextv2.training.task import Examined


def test_loop_logs_evaluates_and_saves_when_due() -> None:
    bench = Bench()
    bench.fit(replace(SETTINGS, val_every_epochs=2))
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


def test_accumulation_equals_the_joint_batch() -> None:
    data = torch.randn(4, 6, 3)

    def trained(batches: list[torch.Tensor], accumulate: int) -> torch.Tensor:
        bench = Bench()
        settings = replace(
            SETTINGS, epochs=1, batches_per_epoch=len(batches), accumulate=accumulate
        )
        bench.fit(
            settings,
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
    bench.fit(replace(SETTINGS, accumulate=2))
    assert bench.progress.step == 9


def test_a_batch_without_images_is_a_batch_that_teaches_nothing() -> None:
    def batches(epoch: int, first: int):
        for i, batch in enumerate(Bench.batches(epoch, first), start=first):
            yield batch[:0] if i in (1, 2) else batch

    bench, halted = Bench(), Bench()
    settings = replace(SETTINGS, accumulate=2)
    bench.fit(settings, batches=batches, size=len)
    assert bench.progress.step == 9
    assert all(math.isfinite(record["loss"]) for record in bench.records if "loss" in record)
    with pytest.raises(Stopped):
        halted.fit(
            settings,
            batches=batches,
            size=len,
            log=lambda record: signal.raise_signal(signal.SIGTERM),
        )
    assert halted.progress.step == 3
    halted.fit(settings, batches=batches, size=len)
    assert torch.equal(halted.model.weight, bench.model.weight)


def test_checkpoints_by_steps_and_by_the_clock() -> None:
    by_steps, by_clock = Bench(), Bench()
    by_steps.fit(replace(SETTINGS, save_every_steps=4))
    assert by_steps.saves == [4, 5, 8, 10, 12, 15]
    by_clock.fit(replace(SETTINGS, save_every_s=0.0))
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
            replace(SETTINGS, epochs=1, batches_per_epoch=1, clip_norm=clip_norm),
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
    bench.fit(replace(SETTINGS, epochs=1), lr_at=lambda step: seen.append(step) or 0.1 * (step + 1))
    assert seen == [0, 1, 2, 3, 4]
    assert [group["lr"] for group in bench.optimizer.param_groups] == pytest.approx([0.25, 0.5])


def test_something_is_due_at_multiples_and_at_the_end() -> None:
    assert [n for n in range(1, 8) if is_due(n, every=3, last=7)] == [3, 6, 7]


def test_a_deadline_is_told_what_an_examination_took_and_nothing_of_other_epochs() -> None:
    told, examined = [], []

    def examine(epoch: int, last: int) -> list[Examined]:
        examined.append((epoch, last))
        if epoch != 2:
            return []
        time.sleep(0.05)
        return [Examined({"kind": "health", "dead": 0.0}, ["all is well"])]

    nothing = {"record_elapsed": lambda: None, "check_first_epoch": lambda images: None}
    deadline = SimpleNamespace(
        epochs=3,
        left=lambda: 0.0,
        line=lambda: "",
        plan_remaining_epochs=lambda images: None,
        close_epoch=told.append,
        **nothing,
    )
    bench = Bench()
    bench.fit(replace(SETTINGS, val_every_epochs=99), examine=examine, deadline=deadline)
    assert examined == [(epoch, 3) for epoch in range(4)]
    assert told[0] == 0 and told[1] >= 0.05
    (record,) = [r for r in bench.records if r["kind"] == "health"]
    assert record == {"kind": "health", "step": 10, "epoch": 2, "dead": 0.0}
