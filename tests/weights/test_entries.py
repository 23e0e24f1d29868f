import argparse
import collections
import datetime
import pathlib
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics

from convnextv2.errors import CheckpointError
from convnextv2.verbs.inspect import inspect
from convnextv2.weights.containers import open_container
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.names import name_table
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore

from .networks import DEPTHS, IMAGES, difference, logits, random_model

MODEL = random_model()


def state(prefix: str = "", shift: float = 0.0) -> dict[str, torch.Tensor]:
    """timm's names for the same network."""
    table = name_table("timm", DEPTHS)
    return {prefix + table[name]: tensor + shift for name, tensor in MODEL.state_dict().items()}


def opened(content: object, path: Path, **more):
    torch.save(content, path / "x.pth", **more)
    return open_weights(path / "x.pth")


def same(weights) -> bool:
    return all(
        torch.equal(weights.tensors[name], tensor) for name, tensor in MODEL.state_dict().items()
    )


@pytest.mark.parametrize(
    "key",
    [
        "model",
        "state_dict",
        "model_state_dict",
        "module",
        "net",
        "network",
        "params",
        "weights",
        "model_state",
        "student",
        "zebra",
    ],
)
def test_weights_are_found_under_any_name(key: str, tmp_path: Path) -> None:
    found = opened({key: state(), "epoch": 3}, tmp_path)
    assert same(found) and found.left_out == [("epoch", "not weights")]


@pytest.mark.parametrize("keys", [("model", "state_dict"), ("a", "b", "c"), ("model", "net")])
def test_weights_are_found_within_entries(keys: tuple[str, ...], tmp_path: Path) -> None:
    content: dict = state()
    for key in reversed(keys):
        content = {key: content, "lr": 0.1}
    found = opened(content, tmp_path)
    assert same(found) and ("lr", "not weights") in found.left_out
    assert (f"{keys[0]}.lr", "not weights") in found.left_out


def test_an_average_of_a_wrapper_is_taken_on_request(tmp_path: Path) -> None:
    for content in (
        {"model": state(), "ema": {"module": state(shift=1), "decay": 0.999}},
        {"student": state(), "teacher": state(shift=1)},
        {"params": state(), "params_ema": state(shift=1)},
        {"state_dict": state("net.") | state("ema_net.", shift=1)},
        {"state_dict": state("ema.", shift=1) | state("net.")},
    ):
        found = opened(content, tmp_path)
        assert same(found) and found.has_average, content.keys()
        average = open_weights(tmp_path / "x.pth", average=True)
        assert torch.equal(average.tensors["head.bias"], MODEL.state_dict()["head.bias"] + 1)
    alone = opened({"ema": {"module": state(shift=1)}}, tmp_path)
    assert torch.equal(alone.tensors["head.bias"], MODEL.state_dict()["head.bias"] + 1)


def test_averaged_models_of_pytorch_are_read(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(MODEL)
    found = opened(averaged.state_dict(), tmp_path)
    assert same(found) and [name for name, _ in found.left_out] == ["n_averaged"]


def test_several_sets_of_weights_are_named(tmp_path: Path) -> None:
    found = opened({"generator": state(shift=1), "model": state()}, tmp_path)
    assert same(found)
    assert "The weights are those of model. There are others: generator." in found.lines()


def test_optimizers_cost_nothing_and_are_left_out(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(MODEL.parameters())
    MODEL(IMAGES.float()).sum().backward()
    optimizer.step()
    try:
        found = opened({"model": state(), "optimizer": optimizer.state_dict()}, tmp_path)
    finally:
        optimizer.zero_grad()
    assert found.left_out == [("optimizer", "not weights")]


class Wrapper(torch.nn.Module):
    """A training module as Lightning has it."""

    def __init__(self, name: str = "model") -> None:
        super().__init__()
        self.add_module(name, torch.nn.Identity())
        self.criterion = torch.nn.CrossEntropyLoss(weight=torch.ones(5))
        self.metric = torchmetrics.MetricCollection(
            [torchmetrics.ConfusionMatrix("multiclass", num_classes=5)]
        )
        self.metric.persistent(True)
        self.extra = torch.nn.Linear(32, 2)


@pytest.mark.parametrize("name", ["model", "net", "backbone"])
def test_extras_beside_a_network_are_left_out(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extras = Wrapper(name).state_dict()
    assert any("confmat" in key for key in extras) and "criterion.weight" in extras
    found = opened({"state_dict": extras | state(f"{name}.")}, tmp_path)
    assert same(found) and dict(found.left_out) == dict.fromkeys(extras, "beside the network")
    assert difference(logits(restore(found)), logits(MODEL)) == 0
    assert convert_weights(found, "timm", tmp_path / "t.pth")[0].startswith(
        "Left out: criterion.weight ... "
    )
    inspect(tmp_path / "x.pth")
    assert re.search(
        r"left out +criterion\.weight ... extra\.bias \(\d\): beside the network",
        capsys.readouterr().out,
    )


def test_extras_inside_of_a_network_are_an_error(tmp_path: Path) -> None:
    for prefix in ("", "model."):
        with pytest.raises(
            CheckpointError, match=r"1 tensors are not part .* (model\.)?norm_post\.weight"
        ):
            opened(
                {"state_dict": state(prefix) | {f"{prefix}norm_post.weight": torch.ones(32)}},
                tmp_path,
            )


def test_an_encoder_with_another_head_is_an_encoder(tmp_path: Path) -> None:
    encoder = {
        name: tensor for name, tensor in state("backbone.").items() if ".head.fc." not in name
    }
    found = opened({"state_dict": encoder | {"projector.0.weight": torch.ones(4, 32)}}, tmp_path)
    assert found.description.kind == "encoder" and found.left_out == [
        ("projector.0.weight", "beside the network")
    ]


def test_an_incomplete_network_beside_extras_is_an_error(tmp_path: Path) -> None:
    tensors = state("model.") | {"criterion.weight": torch.ones(5)}
    del tensors["model.stages.2.blocks.0.mlp.fc1.bias"]
    with pytest.raises(CheckpointError, match=r"1 tensors are missing"):
        opened({"state_dict": tensors}, tmp_path)


def test_python_objects_beside_the_weights_are_named_and_not_built(tmp_path: Path) -> None:
    beside = {
        "metric": np.float64(0.7),
        "history": np.arange(10.0),
        "where": pathlib.Path("/a"),
        "when": datetime.datetime(2026, 1, 2),
        "logs": collections.defaultdict(list, loss=[1.0]),
        "args": argparse.Namespace(lr=1.0),
        "version": torch.torch_version.TorchVersion("2.9"),
    }
    for old in (True, False):
        found = opened(
            {"state_dict": state()} | beside, tmp_path, _use_new_zipfile_serialization=old
        )
        assert same(found)
        said = dict(found.left_out)
        assert said["args"] == "Python object argparse.Namespace" and said["logs"] == "not weights"
        assert (
            said["pathlib.PosixPath"]
            == said["datetime.datetime"]
            == "Python object, neither built nor called"
        )


def test_checkpoints_of_mmpretrains_training_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """epoch_N.pth has mmengine's HistoryBuffer, whose pickle names its class and functions."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        _statistics_methods: dict = {}

        def __init__(self) -> None:
            self._log_history, self._count_history = np.arange(3.0), np.ones(3)
            self._statistics_methods = {"mean": mean}

    def mean(buffer: object) -> float:
        raise AssertionError("is never called")

    for item in (HistoryBuffer, mean):
        item.__module__, item.__qualname__ = module.__name__, item.__name__
        setattr(module, item.__name__, item)
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    table = name_table("mmpretrain", DEPTHS)
    tensors = {table[name]: tensor for name, tensor in MODEL.state_dict().items()}
    hub = {
        "log_scalars": collections.OrderedDict({"train/loss": HistoryBuffer()}),
        "resumed_keys": {},
    }
    content = {
        "meta": {"epoch": 3, "cfg": "x = 1\n" * 5000},
        "state_dict": collections.OrderedDict(tensors),
    }
    torch.save(
        content | {"message_hub": hub, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
        tmp_path / "epoch_3.pth",
    )
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.delitem(sys.modules, name)
    found = open_weights(tmp_path / "epoch_3.pth")
    assert same(found) and found.origin.format == "mmpretrain"
    assert (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "Python object, neither built nor called",
    ) in found.left_out
    assert {"meta", "message_hub", "optimizer"} < {name for name, _ in found.left_out}


def test_a_whole_pickled_model_is_named_in_an_entry_too(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"model \(Python object convnextv2\.model\.convnext\.ConvNeXtV2\)"
    ):
        opened({"model": MODEL, "epoch": 1}, tmp_path)


def test_tensors_that_are_not_plain_are_named(tmp_path: Path) -> None:
    for odd, kind in (
        (torch.ones(2, 2).to_sparse(), "sparse"),
        (torch.ones(2, device="meta"), "without data"),
    ):
        with pytest.raises(
            CheckpointError, match=rf"head\.fc\.bias is not a plain tensor \({kind}\)"
        ):
            opened(state() | {"head.fc.bias": odd}, tmp_path)


def test_parameters_views_types_and_shared_storages_are_read_as_torch_reads_them(
    tmp_path: Path,
) -> None:
    big = torch.arange(10_000.0)
    content = {
        "stem.0.weight": big[100:124].view(2, 3, 2, 2).transpose(0, 1),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "expanded": torch.ones(1).expand(1000),
        "half": torch.ones(3).half(),
        "brain": torch.ones(3).bfloat16(),
        "float8": torch.ones(3).to(torch.float8_e4m3fn),
        "integers": torch.arange(5),
        "bools": torch.tensor([True, False]),
        "scalar": torch.tensor(2.0),
        "empty": torch.ones(0, 3),
        "shared": big[5:],
        "unsigned": torch.arange(3).to(torch.uint16),
    }
    attributed = torch.nn.Parameter(torch.ones(2))
    attributed.note = "kept by _rebuild_parameter_with_state"
    content["attributed"] = attributed
    for old in (False, True):
        for newer in ("float8", "unsigned") if old else ():  # which torch cannot read there itself
            del content[newer]
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not old)
        theirs = torch.load(tmp_path / "x.pth", weights_only=False)
        ours = open_container(tmp_path / "x.pth").tensors
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
            assert torch.equal(ours[name].float(), tensor.detach().float()), name
