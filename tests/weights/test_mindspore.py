import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from convnextv2.errors import CheckpointError
from convnextv2.weights import mindspore
from convnextv2.weights.mindspore import read_ckpt, write_ckpt
from convnextv2.weights.opened import open_weights
from convnextv2.weights.restore import load_model, restore

from .memory import MIB, measure

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mindcv"


def as_generated(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Generate the values that the fixtures' README states, in file order."""
    rng = np.random.default_rng(1)
    return {
        name: (rng.standard_normal(tuple(tensor.shape)) * 0.3).astype(np.float32)
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("name", ["micro.ckpt", "micro_crc.ckpt", "micro_chunked.ckpt"])
def test_every_value_that_mindspore_wrote_is_read_exactly(name: str) -> None:
    tensors = read_ckpt(FIXTURES / name)
    for tag, values in as_generated(tensors).items():
        assert np.array_equal(tensors[tag].numpy(), values), tag


def test_the_safetensors_twin_holds_the_same() -> None:
    tensors, twin = read_ckpt(FIXTURES / "micro.ckpt"), load_file(FIXTURES / "micro.safetensors")
    assert tensors.keys() == twin.keys()
    assert all(torch.equal(tensors[name], twin[name]) for name in twin)


@pytest.mark.parametrize("name", ["micro.ckpt", "micro.safetensors"])
def test_a_mindcv_file_reproduces_mindcvs_logits(name: str) -> None:
    model, description = load_model(FIXTURES / name)
    assert description.arguments["gelu"] == "tanh"
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.load(FIXTURES / "micro_input.npy")))
    assert np.abs(logits.numpy() - np.load(FIXTURES / "micro_logits.npy")).max() < 1e-5


def test_a_training_checkpoint_gives_its_weights_and_on_request_its_average() -> None:
    path = FIXTURES / "micro_train.ckpt"
    tensors = read_ckpt(path)
    assert len(tensors) == 246
    assert (
        tensors["global_step"].item(),
        tensors["updates"].item(),
        len(tensors["learning_rate"]),
    ) == (3, 5003, 6)
    expected = json.loads((FIXTURES / "micro_train.json").read_text())
    images = torch.from_numpy(np.load(FIXTURES / "micro_input.npy"))
    for average, key in ((False, "logits_after"), (True, "ema_logits")):
        weights = open_weights(path, average=average)
        assert len(weights.tensors) == 60
        with torch.inference_mode():
            logits = restore(weights)(images)
        assert np.abs(logits.numpy() - np.array(expected[key])).max() < 1e-5


def test_an_encrypted_file_is_refused_in_one_line_with_its_mode() -> None:
    with pytest.raises(CheckpointError, match="AES-GCM") as error:
        open_weights(FIXTURES / "micro_encrypted.ckpt")
    assert "\n" not in str(error.value)


def test_a_damaged_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    content = bytearray((FIXTURES / "micro_crc.ckpt").read_bytes())
    content[5_000] ^= 1
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_ckpt(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = (FIXTURES / "micro_chunked.ckpt").read_bytes()
    path = tmp_path / "short.ckpt"
    for length in (0, 1, 3, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"short\.ckpt"):
            read_ckpt(path)


def test_what_is_written_equals_mindspores_own_bytes(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "again.ckpt", read_ckpt(FIXTURES / "micro.ckpt"))
    assert (tmp_path / "again.ckpt").read_bytes() == (FIXTURES / "micro.ckpt").read_bytes()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.int8,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.bool,
    ],
)
def test_every_type_and_scalars_survive(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "none": torch.zeros(0).to(dtype),
    }
    write_ckpt(tmp_path / "x.ckpt", tensors)
    back = read_ckpt(tmp_path / "x.ckpt")
    for name, tensor in tensors.items():
        assert back[name].dtype == dtype and torch.equal(back[name], tensor)


def test_large_parameters_are_cut_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mindspore, "CHUNK", 1024)
    tensors = {"a": torch.randn(700), "b": torch.randn(3, 2), "c": torch.randn(256)}
    write_ckpt(tmp_path / "x.ckpt", tensors)
    content = (tmp_path / "x.ckpt").read_bytes()
    assert content.count(b"\x0a\x01a") == 3 and content.count(b"\x0a\x01c") == 1
    assert all(
        torch.equal(tensor, tensors[name])
        for name, tensor in read_ckpt(tmp_path / "x.ckpt").items()
    )


def test_packed_dims_unknown_fields_and_old_scalars_are_understood(tmp_path: Path) -> None:
    number = struct.pack("<f", 2.5)
    packed = (
        field(1, bytes([1, 2])) + field(2, b"Float32") + field(3, number * 2) + b"\x78\x05"
    )  # field 15, a varint
    old_scalar = b"\x08\x00" + field(2, b"Float32") + field(3, number)
    text = b"\x08\x00" + field(2, b"str2") + field(3, "ab".encode("utf-32-le"))
    values = [(b"packed", packed), (b"old", old_scalar), (b"note", text)]
    content = b"".join(field(1, field(1, tag) + field(2, tensor)) for tag, tensor in values)
    (tmp_path / "x.ckpt").write_bytes(content)
    tensors = read_ckpt(tmp_path / "x.ckpt")
    assert tensors["packed"].tolist() == [[2.5, 2.5]]
    assert tensors["old"].shape == () and tensors["old"].item() == 2.5
    assert "note" not in tensors


def test_lengths_and_dims_that_claim_more_than_there_is_allocate_nothing(tmp_path: Path) -> None:
    huge = (
        bytes([0x08]) + b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x12\x07Float32" + b"\x1a\x04abcd"
    )
    value = b"\x0a\x01a\x12" + bytes([len(huge)]) + huge
    (tmp_path / "x.ckpt").write_bytes(b"\x0a" + bytes([len(value)]) + value)
    with pytest.raises(CheckpointError, match="damaged"):
        read_ckpt(tmp_path / "x.ckpt")


def test_the_read_only_files_that_mindspore_leaves_can_be_opened(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "micro_crc.ckpt", tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").chmod(0o400)
    assert len(read_ckpt(tmp_path / "x.ckpt")) == 60


def test_whatever_a_training_script_kept_beside_the_network_is_left_out(tmp_path: Path) -> None:
    plain = read_ckpt(FIXTURES / "micro.ckpt")
    beside = {
        f"{kind}.{name}": tensor
        for name, tensor in plain.items()
        for kind in ("moment3", "prev_gradient")
    }
    beside |= {name: torch.tensor(1.0) for name in ("epoch", "lr", "loss", "best_acc")}
    write_ckpt(tmp_path / "adan.ckpt", plain | beside)
    opened = open_weights(tmp_path / "adan.ckpt")
    assert opened.tensors.keys() == open_weights(FIXTURES / "micro.ckpt").tensors.keys()
    assert {name for name, _ in opened.left_out} == set(beside) and {
        why for _, why in opened.left_out
    } == {"training state"}
    write_ckpt(tmp_path / "odd.ckpt", plain | {"feature.1.0.extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"feature\.1\.0\.extra"):
        open_weights(tmp_path / "odd.ckpt")


def test_notes_are_written_as_mindspore_writes_text(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "x.ckpt", {"a": torch.ones(2)}, {"notice": "für alle"})
    tensors, notes = mindspore.read_ckpt_and_notes(tmp_path / "x.ckpt")
    assert list(tensors) == ["a"] and notes == {"notice": "für alle"}


def test_empty_notes_are_left_out_because_mindspore_cannot_read_them(tmp_path: Path) -> None:
    write_ckpt(tmp_path / "plain.ckpt", {"x": torch.ones(2)})
    write_ckpt(tmp_path / "noted.ckpt", {"x": torch.ones(2)}, {"notice": ""})
    assert (tmp_path / "plain.ckpt").read_bytes() == (tmp_path / "noted.ckpt").read_bytes()


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    length, out = len(content), bytes([number << 3 | 2])
    while length >= 0x80:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return out + bytes([length]) + content


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def entry(tag: bytes, dims: list[int], content: bytes = b"", kind: bytes = b"Float32") -> bytes:
    sides = b"".join(b"\x08" + varint(side) for side in dims)
    return field(1, field(1, tag) + field(2, sides + field(2, kind) + field(3, content)))


@pytest.mark.parametrize(
    "dims", [[0, 2**63], [0, 2**62, 2**62], [2**64 - 1, 0], [0, 2**31, 2**31], [2**32, 2**32]]
)
def test_sides_beyond_what_can_be_multiplied_are_one_line(dims: list[int], tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(entry(b"feature.0.0.weight", dims))
    with pytest.raises(CheckpointError, match="the file is damaged") as error:
        open_weights(tmp_path / "x.ckpt")
    assert str(error.value).isprintable()


def test_masses_of_entries_or_fields_are_refused_before_they_cost_memory(tmp_path: Path) -> None:
    size = 4 << 20
    files = {
        "entries": b"".join(entry(b"%d" % i, [0]) for i in range(100_000)),
        "same entry": entry(b"a", [0]) * 300_000,
        "values without content": field(1, b"") * (size // 2),
        "fields": b"\x78\x05" * (size // 2),
        "packed sides": field(1, field(1, b"a") + field(2, field(1, b"\1" * size))),
        "sides": field(1, field(1, b"a") + field(2, b"\x08\1" * (size // 2))),
        "long name": entry(b"a" * size + "😀".encode(), [0]),
        "long note": entry(b"a", [0], "😀".encode("utf-32-le") * (size // 4), b"str")
        + entry(b"b", [1], bytes(4)),
        "no sides": entry(b"a", [], bytes(size)),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.ckpt").write_bytes(content)
    for result in measure(sorted(tmp_path.iterdir())):
        limit = 2 * Path(result["path"]).stat().st_size + 64 * MIB
        assert result["said"].isprintable() and result["said"], result
        assert result["grown"] < limit and result["seconds"] < 10, result


def test_a_file_is_read_in_less_than_twice_its_size(tmp_path: Path) -> None:
    big = {"feature.0.0.weight": torch.ones(32 << 20, dtype=torch.uint8)}
    write_ckpt(tmp_path / "x.ckpt", big)
    (result,) = measure([tmp_path / "x.ckpt"])
    assert result["grown"] < 2 * (32 << 20) + 16 * MIB, result
