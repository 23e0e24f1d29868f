"""Two ranks that share a model compute what one process computes with the whole model."""

import json

import pytest
from processes import finish_ranks, start_ranks

PROGRAM = '''
import copy, json, sys
import torch
from torch import nn
from convnextv2.distributed import leave, start
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.ema import WeightAverage
from convnextv2.training.gradients import clip
from convnextv2.training.optim import build_optimizer
from convnextv2.training.shard import (
    gathered, is_sharded, local, shard_model, skeleton, whole_model,
)

place, _ = start("cpu")
found = {}


def build():
    torch.manual_seed(3)
    # 5 classes and 9 channels: parts of different sizes.
    return ConvNeXtV2((1, 1, 2, 1), (9, 16, 18, 32), num_classes=5, drop_path_rate=0.2)


def far(model, plain):
    """Return how far the weights of a sharded model are from those of a whole one."""
    whole = gathered(model.state_dict(), place)
    own = plain.state_dict()
    return max((float((whole[name] - own[name]).abs().max()) for name in whole), default=0.0)


def learn(model, recipe, steps=3, average=None, scaler=None, dtype=torch.float32):
    optimizer = build_optimizer(recipe, model, (1, 1, 2, 1))
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    norms = []
    for step in range(steps):
        torch.manual_seed(step)  # the same images on both ranks
        images, targets = torch.randn(6, 3, 32, 32), torch.randint(5, (6,))
        with place.autocast(dtype):
            loss = nn.functional.cross_entropy(model(images), targets)
        if scaler.is_enabled() and step == 1 and (place.rank == 1 or not is_sharded(model)):
            loss = loss * float("inf")  # on one rank only
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norms.append(float(clip(model, 1.0)))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        if average:
            average.update(step + 1)
    return norms, scaler.get_scale()


def sharded():
    with skeleton(True, place):
        model = build()
    assert (next(model.parameters()).device.type == "meta") == (place.rank > 0)
    shard_model(model, place)
    return model


model, plain = sharded(), build()
found["start"] = far(model, plain)
parts = [local(parameter).numel() for parameter in model.parameters()]
whole = [parameter.numel() for parameter in plain.parameters()]
found["part"] = sum(parts) / sum(whole)
found["least part"] = min(parts)

for name in ("adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion"):
    recipe = Recipe(optimizer=name, lr=0.01, weight_decay=0.1, layer_decay=0.9, momentum=0.9)
    model, plain = sharded(), build()
    averages = [WeightAverage(each, 0.5) for each in (model, plain)]
    norms = [learn(each, recipe, average=avg)[0] for each, avg in zip((model, plain), averages)]
    apart = max(abs(a - b) / b for a, b in zip(*norms))
    ema = gathered(averages[0].tensors, place)
    ema = max((float((ema[n] - averages[1].tensors[n]).abs().max()) for n in ema), default=0.0)
    found[name] = [far(model, plain), apart, ema]

# A norm that is infinite because of one rank makes all leave the step out.
recipe, model, plain = Recipe(lr=0.01), sharded(), build()
scales = [
    learn(each, recipe, scaler=torch.amp.GradScaler("cpu", init_scale=8.0), dtype=torch.float16)[1]
    for each in (model, plain)
]
found["scales"] = scales
found["float16"] = far(model, plain)

# Ranks may call a whole model different numbers of times, and it trains on afterwards.
recipe, model, plain = Recipe(lr=0.01), sharded(), build()
images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
learn(model, recipe, 2)
learn(plain, recipe, 2)
model.eval(), plain.eval()
averages = [WeightAverage(each, 0.5) for each in (model, plain)]
with averages[0].in_model(), whole_model(model):
    for _ in range(1 + place.rank):
        with torch.inference_mode():
            answer = model(images)
            feature = model.features(images)[1]  # without the forward of the whole
with torch.inference_mode():
    found["evaluated"] = [
        float((answer - plain(images)).abs().max()),
        float((feature - plain.features(images)[1]).abs().max()),
    ]
model.train(), plain.train()
learn(model, recipe, 2)
learn(plain, recipe, 2)
found["afterwards"] = far(model, plain)
found["parts again"] = sum(local(p).numel() for p in model.parameters()) / sum(whole)
if place.is_main:
    print(json.dumps(found), flush=True)
leave()
'''


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    program = tmp_path_factory.mktemp("shard") / "program.py"
    program.write_text(PROGRAM)
    done = finish_ranks(start_ranks(2, program=(str(program),)))
    assert [code for code, _, _ in done] == [0, 0], done[0][2] + done[1][2]
    return json.loads(done[0][1].splitlines()[-1])


def test_a_model_starts_with_the_weights_of_one_process_in_parts(found: dict) -> None:
    assert found["start"] == 0
    assert found["part"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion"])
def test_every_optimizer_learns_as_with_the_whole_model(name: str, found: dict) -> None:
    weights, norm, average = found[name]
    assert norm < 1e-4 and weights < 2e-4 and average < 2e-4, found[name]


def test_all_ranks_leave_out_a_step_that_is_infinite_on_one(found: dict) -> None:
    assert found["scales"] == [4.0, 4.0]
    assert found["float16"] < 1e-3


def test_a_whole_model_is_evaluated_by_each_rank_alone_and_trains_on(found: dict) -> None:
    assert max(found["evaluated"]) < 1e-4
    assert found["afterwards"] < 2e-4 and found["parts again"] == found["part"]
