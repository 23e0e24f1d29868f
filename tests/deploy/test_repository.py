"""Repositories of models for Triton and OpenVINO Model Server."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import CLASSES

from convnextv2 import export
from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.formats import installed_formats
from convnextv2.errors import ArtifactError, RunError

Exported = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


@pytest.mark.parametrize("layout", ["triton", "ovms"])
def test_a_model_repository_gets_a_new_version_each_time(
    layout: str, exported: Exported, tmp_path: Path
) -> None:
    if "onnx" not in installed_formats():
        pytest.skip("onnx is not installed")
    (tmp_path / "trees" / "²").mkdir(parents=True)  # no version, though str.isdigit says so
    for version in ("1", "2"):
        made = export(exported("onnx"), layout=layout, out=tmp_path, name="trees")
        assert made == tmp_path / "trees" / version
        assert open_artifact(made).card.class_names == CLASSES
    config = tmp_path / "trees" / "config.pbtxt"
    assert config.is_file() == (layout == "triton")
    if layout == "triton":
        text = config.read_text()
        assert (
            'backend: "onnxruntime"' in text
            and '{ name: "images", data_type: TYPE_FP32, dims: [ 3, 64, 64 ] }' in text
        )
        assert '{ name: "logits", data_type: TYPE_FP32, dims: [ 4 ] }' in text
    with pytest.raises(ArtifactError, match="runs formats onnx and openvino, not torch"):
        export(exported("torch"), layout=layout, out=tmp_path)


def test_a_model_repository_leaves_the_runs_artifacts_alone(
    exported: Exported, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(weights.parent, tmp_path / "run")) / weights.name
    options = {"data_dir": str(pictures), "workers": 0, "seconds": 0}
    kept = tmp_path / "run" / "model-openvino-float32"
    shutil.copytree(exported("openvino"), kept)
    with pytest.raises(RunError, match="model-openvino-float32: exists already"):
        export(source, format="openvino", **options)  # so it lies where an export would put it
    before = (kept / "artifact.json").stat().st_mtime_ns
    with pytest.raises(ArtifactError, match="name = 'a b'"):
        export(
            source,
            format="openvino",
            layout="triton",
            out=tmp_path / "repository",
            name="a b",
            **options,
        )
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file. Expected a folder"):
        export(source, format="openvino", layout="triton", out=tmp_path / "file", **options)
    made = export(
        source, format="openvino", layout="triton", out=tmp_path / "repository", **options
    )
    assert made == tmp_path / "repository" / "model" / "1"
    assert (kept / "artifact.json").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == ["model"]
