from typing import get_args

import pytest
import torch
from torch import nn

from convnextv2.errors import CheckpointError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.optim import build_optimizer
from convnextv2.training.state import load_optimizer, optimizer_tensors


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
