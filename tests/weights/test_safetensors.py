import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from convnextv2.cli import main
from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.verbs.inspect import inspect
from convnextv2.weights import safetensors
from convnextv2.weights.adapt import load_encoder
from convnextv2.weights.description import Description, read_description
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import restore
from convnextv2.weights.safetensors import (
    read_tensors,
    save_weights,
    save_weights_file,
    write_tensors,
)

from .memory import CONSTANT, measure


def test_what_a_damaged_header_quotes_stays_on_one_line(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "a\nb", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError) as error:
        read_tensors(path)
    assert "damaged" in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("). Copy or download it again.")


def with_dtype(path: Path, dtype: str) -> Path:
    """A safetensors file whose header states any dtype, written by hand."""
    header = json.dumps({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


def test_a_dtype_that_the_library_does_not_know_is_one_line_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_tensors(with_dtype(tmp_path / "known.safetensors", "F32"))[0]["x"].shape == (2,)
    path = with_dtype(tmp_path / "x.safetensors", "F3")
    assert main(["inspect", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"convnextv2: error: {path}: not a safetensors file, or damaged (")
    assert "It has tensors of the dtype F3, which safetensors" in line
    assert line.endswith("may not know. Update safetensors, or save them in another dtype.")


@pytest.mark.parametrize("kind", [AttributeError, KeyError, TypeError, OverflowError, Exception])
def test_any_error_of_the_library_is_one_line(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An old PyTorch lacks the dtype that a new safetensors asks it for.
    refuse = Mock(side_effect=kind("no attribute\n'float4_e2m1fn_x2'"))
    monkeypatch.setattr(safetensors, "safe_open", refuse)
    path = with_dtype(tmp_path / "x.safetensors", "F4")
    with pytest.raises(CheckpointError) as error:
        read_tensors(path)
    told = str(error.value)
    assert told.startswith(f"{path}: ") and "float4_e2m1fn_x2" in told and told.isprintable()
    assert "the dtype F4" in told


@pytest.mark.parametrize("where", ["class_names", "training", "provenance"])
def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(
    where: str, tmp_path: Path
) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=1)
    name = os.fsdecode(b"caf\xe9")
    content = {"class_names": [name], "training": {"best": name}, "provenance": {"licence": name}}[
        where
    ]
    description = Description("classifier", "custom", model.arguments, **{where: content})
    with pytest.raises(
        CheckpointError, match=r"is not UTF-8 .*caf\\udce9.* Rename that class"
    ) as error:
        save_weights(tmp_path / "best", model.state_dict(), description)
    assert str(error.value).isprintable() and not (tmp_path / "best").exists()


def test_equal_weights_have_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.int64)}
    metadata = {name: f'{name} "Größe"\n\t\x7f' for name in "zyxwvutsr"}
    files = set()
    for i in range(10):
        path = tmp_path / f"{i}.safetensors"
        write_tensors(path, tensors, dict(reversed(metadata.items())) if i % 2 else metadata)
        files.add(path.read_bytes())
    assert len(files) == 1
    found, told = read_tensors(path)
    assert told == {"format": "pt"} | metadata
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_file_that_was_written_with_such_a_name_is_readable(tmp_path: Path) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    names = [os.fsdecode(b"caf\xe9"), "\U0001f600", "\\udce9"]
    content = {
        "kind": "classifier",
        "model": "custom",
        "arguments": model.arguments,
        "class_names": names,
    }
    write_tensors(
        tmp_path / "old.safetensors", model.state_dict(), {"convnextv2": json.dumps(content)}
    )
    read = open_weights(tmp_path / "old.safetensors").description.class_names
    assert read == ["caf\\udce9", "\U0001f600", "\\udce9"]
    save_weights(
        tmp_path / "again",
        model.state_dict(),
        Description("classifier", "custom", model.arguments, class_names=read),
    )
    assert open_weights(tmp_path / "again" / "model.safetensors").description.class_names == read


def test_masses_of_lists_and_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="more than 100,000 lists and objects"):
        read_description({"convnextv2": '{"a": [' + "{}," * 200_000 + "1]}"}, Path("x.safetensors"))
    head = (
        b"{"
        + b",".join(
            b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(60_000)
        )
        + b"}"
    )
    for name, content in (("many", head), ("long", head + b" " * (2 << 20))):
        (tmp_path / name).write_bytes(len(content).to_bytes(8, "little") + content)
        with pytest.raises(CheckpointError, match="expected at most"):
            read_tensors(tmp_path / name)


def test_heads_full_of_notes_take_no_more_than_the_stated_constant(tmp_path: Path) -> None:
    notes = b'{"__metadata__":{' + b",".join(b'"%d":"a"' % i for i in range(300_000)) + b"}}"
    told = '{"class_names": [' + ",".join(f'"{i}"' for i in range(300_000)) + "]}"
    for name, head in (
        ("notes", notes),
        ("told", json.dumps({"__metadata__": {"convnextv2": told}}).encode()),
    ):
        (tmp_path / name).write_bytes(len(head).to_bytes(8, "little") + head)
    for result in measure(sorted(tmp_path.iterdir())):
        assert (
            result["said"] and result["grown"] < 2 * Path(result["path"]).stat().st_size + CONSTANT
        ), result


def test_weights_of_eight_bits_are_opened_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in model.state_dict().items()}
    tensors["head.bias"] = torch.tensor([1.0, float("nan"), 0.0]).to(torch.float8_e4m3fn)
    save_weights(tmp_path, tensors, Description("classifier", "custom", model.arguments))
    inspect(tmp_path / "model.safetensors")
    shown = capsys.readouterr().out
    assert "float8_e4m3fn" in shown and "head.bias: NaN or infinite" in shown
    with pytest.raises(CheckpointError, match="1 tensors hold NaN or infinite numbers: head.bias"):
        restore(open_weights(tmp_path / "model.safetensors"))
    tensors["head.bias"] = torch.tensor([1.0, 2.0, 0.0]).to(torch.float8_e4m3fn)
    save_weights(tmp_path, tensors, Description("classifier", "custom", model.arguments))
    loaded = restore(open_weights(tmp_path / "model.safetensors"))
    assert torch.equal(loaded.head.weight, tensors["head.weight"].float())


def test_weights_of_eight_bits_start_models_of_other_forms(tmp_path: Path) -> None:
    eight_bits = torch.float8_e4m3fn
    scaled = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3, block="v1")
    for parameter in scaled.parameters():
        parameter.data = parameter.data.normal_().to(eight_bits).float()
    tensors = {name: tensor.to(eight_bits) for name, tensor in scaled.state_dict().items()}
    write_tensors(tmp_path / "v1.safetensors", tensors)
    opened = open_weights(tmp_path / "v1.safetensors")
    weight = scaled.stages[0][0].gamma[:, None] * scaled.stages[0][0].pwconv2.weight
    assert torch.equal(opened.tensors["stages.0.0.pwconv2.weight"], weight)
    stem = scaled.downsample_layers[0][0].weight
    for channels, expected in ((1, stem.sum(1, keepdim=True)), (6, stem.repeat(1, 2, 1, 1) / 2)):
        model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), in_channels=channels, block="v1")
        load_encoder(model, tensors, source="x")
        assert torch.equal(model.downsample_layers[0][0].weight, expected)


def test_weights_of_four_bits_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", "0.7", reason="older versions do not know the dtype")
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    tensors = model.state_dict()
    tensors["head.weight"] = torch.zeros(3, 16, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    save_weights(tmp_path, tensors, Description("classifier", "custom", model.arguments))
    said = r"head\.weight is \(3, 16\) .*expected .* of 8 to 64 bits"
    with pytest.raises(CheckpointError, match=said):
        open_weights(tmp_path / "model.safetensors")


def test_a_single_file_has_nothing_beside_it_and_is_enough(tmp_path: Path) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    path = tmp_path / "new" / "a.safetensors"
    description = Description("classifier", "custom", model.arguments, class_names=["a", "b", "c"])
    save_weights_file(path, model.state_dict(), description)
    assert list(path.parent.iterdir()) == [path]
    opened = open_weights(path)
    assert opened.description == description
    assert all(torch.equal(opened.tensors[name], held) for name, held in model.state_dict().items())
