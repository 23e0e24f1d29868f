import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from convnextv2.errors import CheckpointError
from convnextv2.evaluation.losses import cross_entropy
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.read import read_recipe
from convnextv2.training.ema import WeightAverage
from convnextv2.training.mindcv_files import (
    average_of,
    optimizer_state,
    position_of,
    prune,
    read_result_log,
    result_log,
    write_training_checkpoint,
)
from convnextv2.training.optim import build_optimizer
from convnextv2.training.schedule import build_schedule
from convnextv2.training.state import load_optimizer, optimizer_tensors
from convnextv2.weights.mindspore import read_ckpt
from convnextv2.weights.names import name_table
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mindcv"


def recipe():
    """The fixture's settings in MindCV's words (its README)."""
    words = {
        "scheduler": "cosine_decay", "lr": 0.01, "min_lr": 1e-5, "warmup_epochs": 1,
        "warmup_factor": 0.1, "decay_epochs": 2, "epoch_size": 3, "opt": "adamw",
        "weight_decay": 0.049, "weight_decay_filter": "disable", "label_smoothing": 0.1,
        "ema": True, "ema_decay": 0.9999, "model": "convnextv2_tiny", "defaults": "mindcv",
    }  # fmt: skip
    return read_recipe(words)[0]


def replay() -> tuple[ConvNeXtV2, torch.optim.Optimizer, WeightAverage, list[float]]:
    """Run the three steps of the fixture with our parts.

    For the average, 5,000 steps count as done before, as there.
    """
    model = restore(open_weights(FIXTURES / "micro_crc.ckpt"))
    assert isinstance(model, ConvNeXtV2)
    settings = recipe()
    optimizer = build_optimizer(settings, model, model.depths)
    average = WeightAverage(model, settings.ema_decay, settings.ema_form)
    lr_at = build_schedule(settings, peak=settings.lr, floor=settings.min_lr, steps_per_epoch=2)
    images, targets = torch.from_numpy(np.load(FIXTURES / "micro_input.npy")), torch.tensor([3, 7])
    losses = []
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step)
        loss = cross_entropy(model(images), targets, settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(5_001 + step)
        losses.append(loss.item())
    return model, optimizer, average, losses


def test_three_steps_are_those_of_mindcv() -> None:
    model, optimizer, average, losses = replay()
    expected = json.loads((FIXTURES / "micro_train.json").read_text())
    assert np.allclose(losses, expected["losses"], rtol=0, atol=1e-5)
    theirs = read_ckpt(FIXTURES / "micro_train.ckpt")
    moments = optimizer_tensors(optimizer, model)
    moved = 0.0
    for name, tag in name_table("mindcv", model.depths).items():
        ours = {"": model.state_dict()[name], "ema.": average.tensors[name]}
        ours |= {"adam_m.": moments[f"{name}|exp_avg"], "adam_v.": moments[f"{name}|exp_avg_sq"]}
        for prefix, tensor in ours.items():
            assert (tensor - theirs[prefix + tag].reshape(tensor.shape)).abs().max() < 1e-5, (
                prefix + tag
            )
        moved = max(moved, float((ours[""] - ours["ema."]).abs().max()))
    assert moved > 1e-3  # the average lags, so it was really compared


def test_a_written_training_checkpoint_has_mindcvs_tags_and_values(tmp_path: Path) -> None:
    model, optimizer, average, _ = replay()
    lrs = json.loads((FIXTURES / "micro_train.json").read_text())["lr"]
    path = tmp_path / "convnextv2_micro-1_3.ckpt"
    write_training_checkpoint(
        path, model.state_dict(), depths=model.depths, average=average.tensors,
        optimizer=optimizer_tensors(optimizer, model), step=3, updates=5003, betas=(0.9, 0.999),
        lrs=lrs,
    )  # fmt: skip
    ours, theirs = read_ckpt(path), read_ckpt(FIXTURES / "micro_train.ckpt")
    assert theirs.keys() - ours.keys() == {"scale_sense"} and not ours.keys() - theirs.keys()
    for tag in ours:
        assert ours[tag].shape == theirs[tag].shape and ours[tag].dtype == theirs[tag].dtype, tag
        assert torch.allclose(ours[tag], theirs[tag], rtol=1e-5, atol=1e-5), tag


def test_mindcvs_optimizer_state_continues_exactly_where_ours_was() -> None:
    model, optimizer, _, _ = replay()
    state = optimizer_state(
        open_weights(FIXTURES / "micro_train.ckpt"), "convnextv2_micro", steps=3
    )
    other = restore(open_weights(FIXTURES / "micro_train.ckpt"))
    continued = build_optimizer(recipe(), other, model.depths)
    load_optimizer(continued, other, state, 3)
    for name, tensor in optimizer_tensors(optimizer, model).items():
        assert torch.allclose(optimizer_tensors(continued, other)[name], tensor, atol=1e-6), name


def test_state_of_another_step_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="was saved at step 3, the weights at step 4"):
        optimizer_state(open_weights(FIXTURES / "micro_train.ckpt"), "convnextv2_micro", steps=4)
    with pytest.raises(CheckpointError, match="optim_convnextv2_micro.ckpt holds"):
        optimizer_state(open_weights(FIXTURES / "micro_crc.ckpt"), "convnextv2_micro", steps=4)
    plain = tmp_path / "convnextv2_micro-1_3.ckpt"
    plain.write_bytes((FIXTURES / "micro_crc.ckpt").read_bytes())
    (tmp_path / "optim_convnextv2_micro.ckpt").write_bytes(
        (FIXTURES / "micro_train.ckpt").read_bytes()
    )
    assert len(optimizer_state(open_weights(plain), "convnextv2_micro", steps=3)) == 180
    # With accumulation MindCV counts batches, here we count updates.
    assert len(optimizer_state(open_weights(plain), "convnextv2_micro", steps=1, batches=3)) == 180


def test_the_average_of_a_training_checkpoint_comes_with_its_count() -> None:
    found = average_of(open_weights(FIXTURES / "micro_train.ckpt"))
    assert found is not None and found[1] == 5003
    theirs = read_ckpt(FIXTURES / "micro_train.ckpt")
    for name, tag in name_table("mindcv", (1, 1, 1, 1)).items():
        assert torch.equal(found[0][name], theirs[f"ema.{tag}"].reshape(found[0][name].shape)), name
    assert average_of(open_weights(FIXTURES / "micro_crc.ckpt")) is None


def test_the_epoch_is_in_the_name_or_the_counter_or_nowhere(tmp_path: Path) -> None:
    assert position_of("convnextv2_tiny-12_1251.ckpt", {}, 7).epoch == 12
    copy = tmp_path / "convnextv2_micro_best.ckpt"
    copy.write_bytes((FIXTURES / "micro_train.ckpt").read_bytes())
    assert position_of(copy.name, read_ckpt(copy), 2) == (1, "from its global_step, 3")
    copy.write_bytes((FIXTURES / "micro_crc.ckpt").read_bytes())
    assert position_of(copy.name, read_ckpt(copy), 2).epoch == 0


def test_result_log_is_mindcvs_to_the_letter() -> None:
    theirs = (FIXTURES / "run_log" / "result.log").read_text()
    records: list[dict] = [{"kind": "train", "loss": 1.0}]
    for line in theirs.splitlines()[1:]:
        epoch, loss, top1, top5, train_s, eval_s, total_s = line.split()
        times = {"train_s": float(train_s), "eval_s": float(eval_s), "total_s": float(total_s)}
        record = {"kind": "epoch", "epoch": int(epoch), "last_loss": float(loss), **times}
        if float(eval_s):
            record |= {"top1": float(top1.rstrip("%")) / 100, "top5": float(top5.rstrip("%")) / 100}
        records.append(record)
    assert result_log(records) == theirs
    assert read_result_log(theirs, steps_per_epoch=6) == [
        record | {"kind": "epoch", "step": 6 * record["epoch"]} for record in records[1:]
    ]
    few_classes = [
        {key: value for key, value in record.items() if key != "top5"} for record in records
    ]
    assert not re.search("Top_5", result_log(few_classes))
    assert [
        record["top1"] for record in read_result_log(result_log(few_classes), 6) if "top1" in record
    ] == [0.333333, 0.333333]
    assert read_result_log("Dear diary,\n1 2 3\n", 6) == []


@pytest.mark.parametrize(
    ("policy", "kept"), [("latest_k", {3, 4, 9}), ("top_k", {1, 2, 4, 9}), ("all", {1, 2, 3, 4, 9})]
)
def test_checkpoints_of_mindcv_are_kept_by_the_policy_up_to_this_epoch(
    policy: str, kept: set[int], tmp_path: Path
) -> None:
    for name in (
        "tiny-1_6",
        "tiny-2_6",
        "tiny-3_6",
        "tiny-4_6",
        "tiny-9_6",
        "tiny_best",
        "optim_tiny",
        "other-1_6",
    ):
        (tmp_path / f"{name}.ckpt").touch()
    prune(tmp_path, "tiny", 4, keep=2, policy=policy, scores={1: 0.5, 2: 0.6, 3: 0.4, 9: 0.9})
    left = {path.name for path in tmp_path.iterdir()}
    assert {int(name[5]) for name in left if name.startswith("tiny-")} == kept
    assert {"tiny_best.ckpt", "optim_tiny.ckpt", "other-1_6.ckpt"} <= left
