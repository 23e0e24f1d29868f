"""--json: one answer on stdout as it is declared, and everything for people on stderr."""

import math
from pathlib import Path

import pytest
from json_answers import read_answer

import convnextv2
from convnextv2 import arguments
from convnextv2.cli import main
from convnextv2.console import answering, print_json
from convnextv2.verbs.answers import ANSWERS
from convnextv2.verbs.options import VERBS


def ask(capsys: pytest.CaptureFixture[str], verb: str, *arguments: object) -> tuple:
    """The answer, and what was printed for people."""
    assert main([verb, *map(str, arguments), "--json"]) == 0
    told = capsys.readouterr()
    return read_answer(verb, told.out), told.err


def test_every_verb_with_the_option_has_a_declared_answer() -> None:
    assert {name.partition(" ")[0] for name in ANSWERS} == {
        name for name, verb in VERBS.items() if "json" in verb.__dataclass_fields__
    }


def test_validate(weights: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, told = ask(capsys, "validate", weights, "--data_dir", pictures, "--workers", 0)
    evaluation = convnextv2.validate(weights, data_dir=pictures, workers=0)
    assert found["top1"] == evaluation.top1 and found["images"] == 24
    assert found["confusion"] == evaluation.confusion.tolist()
    assert found["class_names"] == ["ash", "birch", "cedar", "dogwood"]
    assert Path(found["report"]).is_file() and found["weights"] == str(weights)
    assert "top-1" in told and "Report: " in told


def test_export_and_convert(
    weights: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--data_dir", pictures, "--workers", 0, "--batch_size", 2, "--seconds", 0.1)
    out = tmp_path / "made"
    found, told = ask(capsys, "export", weights, "--format", "onnx", "--out", out, *more)
    assert found["path"] == str(out) and found["outputs"][0] == "logits"
    assert found["certificate"]["real"]["images"] == 24 and "Artifact: " in told
    found, told = ask(capsys, "convert", weights, "--to", "timm", "--out", tmp_path / "timm")
    assert found["path"] == str(tmp_path / "timm") and found["notes"] == told.splitlines()


def test_inspect(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, told = ask(capsys, "inspect", weights)
    assert found["parameters"] == sum(
        tensor.numel() for tensor in convnextv2.inspect(weights).tensors.values()
    )
    assert found["kind"] == "classifier" and found["arguments"]["dims"] == [16, 24, 32, 48]
    assert found["sha256"] in told


def test_statistics_models_and_recipes(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = ask(capsys, "statistics", pictures, "--workers", 0)
    assert found["images"] == 4 and found["width"] == {"min": 90, "median": 90.0, "max": 90}
    found, told = ask(capsys, "models", "*tiny")
    assert [row["parameters"] for row in found] == [28_635_496] and "28,635,496" in told
    assert main(["models", "convnext_tiny", "--weights", "--json"]) == 0
    rows = read_answer("models --weights", capsys.readouterr().out)
    assert "timm/convnext_tiny.in12k_ft_in1k" in [row["repository"] for row in rows]
    found, _ = ask(capsys, "recipes")
    assert "small_data" in [row["name"] for row in found]


def test_a_mistake_leaves_stdout_empty_and_the_code_is_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "giant", "--json"]) == 2
    told = capsys.readouterr()
    assert not told.out and "matches none of" in told.err


def test_a_number_that_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(True):
        print("for people")
        print_json({"loss": math.nan, "each": [(math.inf, 1.5)], "text": "é"})
    told = capsys.readouterr()
    assert told.out == '{"loss": null, "each": [[null, 1.5]], "text": "\\u00e9"}\n'
    assert told.err == "for people\n"


def test_a_verb_that_another_one_calls_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(True):
        convnextv2.models("atto")
    assert not capsys.readouterr().out


def test_only_the_main_rank_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with answering(True):
        print_json([1])
    assert not capsys.readouterr().out


def test_help_tells_of_the_option() -> None:
    for name in {name.partition(" ")[0] for name in ANSWERS}:
        assert "--json" in arguments.build_parser(VERBS[name]).format_help()
