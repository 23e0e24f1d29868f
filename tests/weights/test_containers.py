import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convnextv2.errors import CheckpointError
from convnextv2.verbs.inspect import inspect
from convnextv2.weights.containers import open_container
from convnextv2.weights.opened import open_weights

from .networks import random_model


def test_a_pickled_model_is_named_and_a_safe_way_advised(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError) as error:
        open_weights(tmp_path / "whole.pt")
    message = str(error.value)
    assert "torch.nn.modules.linear.Linear" in message and message.endswith(
        "save model.state_dict() instead."
    )
    assert message.isprintable() and "weights_only" not in message


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema_state_dict", "ema"])
def test_an_average_beside_the_weights_is_offered_and_taken_on_request(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, average = random_model().state_dict(), random_model().state_dict()
    average = {name: tensor + 1 for name, tensor in average.items()}
    torch.save({"model": plain, key: average, "epoch": 3}, tmp_path / "both.pth")
    opened, averaged = (
        open_weights(tmp_path / "both.pth"),
        open_weights(tmp_path / "both.pth", average=True),
    )
    assert torch.equal(opened.tensors["head.bias"], plain["head.bias"])
    assert torch.equal(averaged.tensors["head.bias"], average["head.bias"])
    assert any("--ema" in line for line in opened.lines()) and not any(
        "--ema" in line for line in averaged.lines()
    )
    assert opened.left_out == [("epoch", "not weights")]
    inspect(tmp_path / "both.pth")
    assert re.search(r"average +yes \(convert --ema\)", capsys.readouterr().out)
    torch.save({key: average}, tmp_path / "alone.pth")
    assert torch.equal(
        open_weights(tmp_path / "alone.pth").tensors["head.bias"], average["head.bias"]
    )


def test_without_tensors_the_entries_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=1.0)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"0 tensors; beside them epoch, args"):
        open_weights(tmp_path / "x.pth")


def test_a_folder_with_pytorch_model_bin_is_opened_without_running_it(tmp_path: Path) -> None:
    torch.save(random_model().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    assert open_weights(tmp_path).origin.container == "PyTorch checkpoint"
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not opened"):
        open_weights(tmp_path)


def test_values_that_are_no_numbers_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = random_model().state_dict()
    tensors["head.bias"][0] = float("nan")
    torch.save(tensors, tmp_path / "x.pth")
    inspect(tmp_path / "x.pth")
    assert re.search(r"values +head\.bias: NaN or infinite", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["checkpoint", "x.pb", "x.onnx", "x.msgpack"])
def test_the_content_of_a_file_decides_and_not_its_name(name: str, tmp_path: Path) -> None:
    tensors = random_model().state_dict()
    save_file(tensors, tmp_path / name)
    assert open_weights(tmp_path / name).origin.container == "safetensors"
    torch.save(tensors, tmp_path / name)
    assert open_weights(tmp_path / name).origin.container == "PyTorch checkpoint"


@pytest.mark.parametrize(
    ("name", "said"), [("a" * 300, "File name too long"), ("a\0b", "embedded null byte")]
)
def test_a_name_that_no_file_can_have_is_one_line(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"cannot be read \({said}\)"):
        open_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ('---\nlicense: "mit"\ntitle: a --- b\n---\n', "mit"),
        ("\ufeff---\nmodel-index: |\n" + "  x\n" * 9000 + "license: mit\n---\n", "mit"),
        ("---\nlicense: mit\nmodel-index: |\n" + "  x\n" * 90_000 + "---\n", "mit"),
        ("---\nlicense: other\nlicense_name: ours\n---\n", "ours"),
        ("# Weights\n---\nlicense: of the code, not of these\n---\n", ""),
    ],
)
def test_the_licence_is_that_of_the_front_matter(card: str, licence: str, tmp_path: Path) -> None:
    save_file(random_model().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text(card)
    assert open_container(tmp_path).licence == licence


@pytest.mark.parametrize(
    "index",
    [
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 5}}',
        '{"weight_map": {"a": "../x"}}',
        '{"weight_map": {"a": "x\\ny"}}',
        "[]",
    ],
)
def test_an_index_that_names_no_shards_is_refused(index: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json: "):
        open_weights(tmp_path)


def test_the_size_that_is_shown_is_that_of_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"model": random_model().state_dict(), "beside": torch.ones(1 << 19)},
        tmp_path / "pytorch_model.bin",
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "other.safetensors").write_bytes(bytes(5_000_000))
    inspect(tmp_path)
    size = (tmp_path / "pytorch_model.bin").stat().st_size
    assert f", {size / 1e6:.1f} MB" in capsys.readouterr().out and size > 2_000_000
