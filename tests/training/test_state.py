import json
import math
from typing import get_args

import pytest
import torch
from torch import nn

from convnextv2.errors import CheckpointError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.optim import build_optimizer
from convnextv2.training.state import Progress, best_of, load_optimizer, optimizer_tensors, score_of


def trained(
    seed: int,
    steps: int,
    like: tuple[nn.Module, torch.optim.Optimizer] | None = None,
    name: str = "adamw",
) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = build_optimizer(Recipe(optimizer=name, lr=0.01), model)
    if like:
        model.load_state_dict(like[0].state_dict())
        load_optimizer(optimizer, model, optimizer_tensors(like[1], like[0]), 3)
    for step in range(steps):
        model(torch.full((2, 3), float(step + 1))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("name", get_args(Recipe.model_fields["optimizer"].annotation))
def test_every_optimizer_goes_on_bit_for_bit_from_its_tensors(name: str) -> None:
    first = trained(0, 3, name=name)
    saved = {tensor_name.split("|")[1] for tensor_name in optimizer_tensors(first[1], first[0])}
    if name in ("adamw", "adam"):
        assert saved == {"step", "exp_avg", "exp_avg_sq"}
    start = [parameter.detach().clone() for parameter in trained(0, 0, name=name)[0].parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(start, first[0].parameters(), strict=True))
    continued = trained(7, 2, like=first, name=name)
    straight = trained(0, 3, name=name)
    for step in range(2):
        straight[0](torch.full((2, 3), float(step + 1))).square().sum().backward()
        straight[1].step()
        straight[1].zero_grad()
    assert all(
        torch.equal(a, b)
        for a, b in zip(continued[0].parameters(), straight[0].parameters(), strict=True)
    )


def test_state_of_other_parameters_is_refused() -> None:
    model, optimizer = trained(0, 1)
    other = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match="other parameters"):
        load_optimizer(
            torch.optim.AdamW([{"params": other.parameters()}]),
            other,
            optimizer_tensors(optimizer, model),
            1,
        )


def test_state_of_other_shapes_is_refused() -> None:
    model, optimizer = trained(0, 1)
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 7))
    with pytest.raises(
        CheckpointError, match=r"1.weight \(exp_avg\) as \(2, 4\), the model as \(7, 4\)"
    ):
        load_optimizer(
            torch.optim.AdamW([{"params": other.parameters()}]),
            other,
            optimizer_tensors(optimizer, model),
            1,
        )


def test_the_score_is_the_figure_that_decides_and_a_smaller_loss_is_better():
    figures = {"top1": 0.5, "macro_f1": 0.25, "loss": 1.5}
    assert score_of(figures, "top1") == 0.5 and score_of(figures, "macro_f1") == 0.25
    assert score_of(figures, "loss") == -1.5 and score_of(figures, "top5") is None
    worst = score_of({"loss": math.nan}, "loss")
    assert worst < -1e300 and json.loads(json.dumps(worst, allow_nan=False)) == worst


def test_the_best_epoch_of_a_log_is_the_earliest_of_equals():
    records = [
        {"kind": kind, "epoch": epoch, "loss": loss}
        for epoch, loss in enumerate((3.0, 1.0, 2.0, 1.0), 1)
        for kind in ("eval", "epoch")
    ]
    records.insert(0, {"kind": "train", "epoch": 0.5, "loss": 0.1})
    assert best_of(records, "loss") == (-1.0, 2)
    assert best_of(records, "top1") == (None, None)


def test_of_equal_scores_the_later_weights_are_the_best_and_patience_counts_from_the_first():
    progress = Progress()
    outcomes = []
    for epoch, score in enumerate((0.5, 1.0, 1.0, 0.9, 1.0), 1):
        progress.epoch = epoch
        outcomes.append(progress.take_score(score))
    assert outcomes == [True, True, True, False, True]
    assert (progress.best, progress.best_epoch) == (1.0, 2)
    assert progress.is_out_of(3) and not progress.is_out_of(4)
