"""From a run to an artifact, with the commands of docs/how-to/deploy.md."""

from pathlib import Path

import pytest

from convnextv2.cli import main
from convnextv2.deploy.formats import installed_formats


@pytest.mark.skipif("openvino" not in installed_formats(), reason="openvino is not installed")
def test_a_run_is_exported_and_its_artifact_validated_on_the_same_images(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(trained)]) == 0
    expected = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("images", "top-1"))
    ]
    assert main(["export", str(trained), "--format", "openvino", "--seconds", "0"]) == 0
    artifact = trained / "artifacts" / "openvino-float32"
    assert f"Artifact: {artifact}" in capsys.readouterr().out
    own_page = (trained / "report.html").read_bytes()
    assert main(["validate", str(artifact)]) == 0
    assert (trained / "report.html").read_bytes() == own_page
    page = (artifact / "report.html").read_text()
    assert "<title>ConvNeXt V2 (8, 16, 24, 32)" in page and "64 px" in page
    assert [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("images", "top-1"))
    ] == expected
    assert main(["validate", str(artifact), "--image_size", "32"]) == 2
    assert "an artifact prepares its images in its own way" in capsys.readouterr().err
    assert main(["validate", str(artifact), "--precision", "bfloat16"]) == 2
    assert "computes in float32" in capsys.readouterr().err
