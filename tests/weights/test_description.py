import json
from pathlib import Path

import pytest

from convnextv2.errors import CheckpointError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.description import check_balance, read_description

HOW = {
    "image_size": [32, 32],
    "channels": 3,
    "eval_preset": "timm",
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
}
ARGUMENTS = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=None).arguments


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"provenance": "x"}, "provenance = 'x'"),
        ({"provenance": None}, "provenance = None"),
        ({"class_names": 5}, "class_names = 5"),
        ({"class_names": ["a"]}, "1 class names for 0 classes"),
        ({"preprocessing": {"a": 1}}, "preprocessing.a"),
        ({"preprocessing": {"crop_pct": 0.5}}, "preprocessing without image_size, channels"),
        (
            {"preprocessing": HOW | {"image_size": [10**6, 10**6]}},
            "preprocessing.image_size.0 = 1000000",
        ),
        ({"preprocessing": HOW | {"crop_pct": 1e-9}}, "preprocessing.crop_pct = 1e-09"),
        ({"preprocessing": HOW | {"mean": [0.5]}}, "its mean has 1 numbers for 3 channels"),
        ({"preprocessing": HOW | {"std": [0.2] * 5}}, "its std has 5 numbers for 3 channels"),
        (
            {"preprocessing": HOW | {"channels": 1, "mean": [0.5], "std": [0.2]}},
            "a network for 3 channels, but preprocessing for 1",
        ),
        ({"preprocessing": HOW | {"value_range": [1.0]}}, "preprocessing.value_range"),
        ({"preprocessing": HOW | {"value_range": [3.0, 2.0]}}, "expected two numbers, low < high"),
        ({"preprocessing": HOW | {"value_range": [0.0, "x"]}}, "preprocessing.value_range.1 = 'x'"),
        ({"training": [1]}, "training"),
        ({"arguments": {"gelu": "zzz"}}, "arguments.gelu = 'zzz'"),
        ({"arguments": {"grn_scope": 7}}, "arguments.grn_scope = 7"),
        ({"arguments": {"norm_eps": "x"}}, "arguments.norm_eps = 'x'"),
        ({"arguments": {"stem_stride": 10**9}}, "arguments.stem_stride = 1000000000"),
        ({"arguments": {"depths": [1, 1, 10**9, 1]}}, "arguments.depths.2 = 1000000000"),
        ({"arguments": {"dims": [8, 8, 8, 10**9]}}, "arguments.dims.3 = 1000000000"),
        ({"arguments": {"in_channels": 10**9}}, "arguments.in_channels = 1000000000"),
        ({"arguments": {"num_classes": 10**9}}, "arguments.num_classes = 1000000000"),
        ({"fcmae": {"decoder_depth": 10**9}}, "fcmae.decoder_depth = 1000000000"),
        ({"fcmae": {"tile": 10**9}}, "fcmae.tile = 1000000000"),
        ({"kind": "Zebra!"}, "kind = 'Zebra!'"),
        ({"model": None}, "model = None"),
        ({"unknown": 1}, "unknown = 1"),
    ],
)
def test_a_description_of_wrong_types_is_refused_in_one_line(wrong: dict, what: str) -> None:
    content = (
        {"kind": "encoder", "model": "custom"}
        | wrong
        | {"arguments": ARGUMENTS | wrong.get("arguments", {})}
    )
    with pytest.raises(CheckpointError) as error:
        read_description({"convnextv2": json.dumps(content)}, Path("x.safetensors"))
    assert what in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_description_without_one_of_the_arguments_is_refused(name: str) -> None:
    arguments = {key: value for key, value in ARGUMENTS.items() if key != name}
    content = {"kind": "encoder", "model": "custom", "arguments": arguments}
    with pytest.raises(CheckpointError, match=f"arguments.{name}"):
        read_description({"convnextv2": json.dumps(content)}, Path("x.safetensors"))


@pytest.mark.parametrize("text", ["[1]", "null", "{", "5", "[" * 100_000])
def test_a_description_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_description({"convnextv2": text}, Path("x.safetensors"))


def test_a_message_about_a_file_is_one_plain_line() -> None:
    assert str(CheckpointError("a\nb\x1b[1m\u2028c é")) == "a\\nb\\x1b[1m\\u2028c é"


@pytest.mark.parametrize(
    "more", [{}, {"value_range": None}, {"value_range": [-0.5, 4000.0]}, {"antialias": True}]
)
def test_preprocessing_with_and_without_a_range_of_values_is_read(more: dict) -> None:
    content = {
        "kind": "encoder",
        "model": "custom",
        "arguments": ARGUMENTS,
        "preprocessing": HOW | more,
    }
    assert (
        read_description({"convnextv2": json.dumps(content)}, Path("x")).preprocessing == HOW | more
    )


BALANCE = {"class_counts": [9, 0, 1], "prior": [0.75, 0.0, 0.25], "done": "sampling sqrt"}


@pytest.mark.parametrize("balance", [{}, BALANCE, BALANCE | {"prior": "natural"}])
def test_the_balance_of_the_classes_is_read(balance: dict) -> None:
    content = {
        "kind": "classifier",
        "model": "custom",
        "arguments": ARGUMENTS | {"num_classes": 3},
        "balance": balance,
    }
    assert read_description({"convnextv2": json.dumps(content)}, Path("x")).balance == balance


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"class_counts": [9, 1]}, "a class_counts of 2 numbers with sum 10, for 3 classes"),
        ({"class_counts": [0, 0, 0]}, "a class_counts of 3 numbers with sum 0"),
        ({"class_counts": [9, -1, 1]}, "class_counts.1 = -1"),
        ({"class_counts": [9, 0.5, 1]}, "class_counts.1 = 0.5"),
        ({"prior": "even"}, "prior"),
        ({"prior": [1.0]}, "a prior of 1 numbers"),
        ({"done": None}, "done = None"),
        ({"more": 1}, "more = 1"),
    ],
)
def test_a_balance_that_makes_no_sense_is_refused(wrong: dict, what: str) -> None:
    with pytest.raises(CheckpointError) as error:
        check_balance(BALANCE | wrong, 3, Path("x.json"))
    assert what in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="has no done"):
        check_balance({name: BALANCE[name] for name in ("class_counts", "prior")}, 3, Path("x"))
