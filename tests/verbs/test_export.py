from pathlib import Path

import pytest
from trees import network, save

import convnextv2
from convnextv2.cli import main
from convnextv2.errors import ArtifactError, RecipeError
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights


@pytest.mark.parametrize("given", [".", "best/model.safetensors", "epochs/1/model.safetensors"])
def test_a_repository_calls_a_model_after_the_run_in_the_working_folder(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(network(), tmp_path / "my run" / "best")
    save(network(), tmp_path / "my run" / "epochs" / "1")
    (tmp_path / "my run" / "recipe.yaml").write_text("epochs: 1\n")
    monkeypatch.chdir(tmp_path / "my run")
    with pytest.raises(ArtifactError, match="name = 'my run': expected letters"):
        convnextv2.export(given, layout="triton", out=tmp_path / "models")


@pytest.mark.parametrize("target", ["transformers", "convnextv2"])
def test_an_artifact_of_hub_weights_lands_in_the_working_folder(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--me--shoes" / "snapshots" / "0123abc"
    convert_weights(open_weights(save(network(), tmp_path / "ours")), target, snapshot)
    before = sorted((tmp_path / "hub").rglob("*"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert (
        main(
            [
                "export",
                str(snapshot),
                "--format",
                "torch",
                "--images",
                "4",
                "--seconds",
                "0",
                "--workers",
                "0",
            ]
        )
        == 0
    )
    assert sorted((tmp_path / "hub").rglob("*")) == before
    assert (tmp_path / "work" / "shoes-torch-float32" / "artifact.json").is_file()


@pytest.mark.parametrize("layout", ["folder", "triton"])
def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = save(network(), tmp_path / "ours")
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"file.artifact.*: nothing can be written in "):
        convnextv2.export(
            weights, format="onnx", layout=layout, name="m", out=tmp_path / "file" / "artifact"
        )
    assert capsys.readouterr().out == ""
