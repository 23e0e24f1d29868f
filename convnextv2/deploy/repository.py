"""Model repositories of other servers, made from an artifact: NVIDIA Triton's and OpenVINO Model Server's.

NAME/config.pbtxt   Triton's description: inputs, outputs, batching
NAME/1/model.onnx   (or model.xml and model.bin)
NAME/1/artifact.json, certificate.json
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from convnextv2.deploy.artifact import CARD, CERTIFICATE, Artifact
from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.errors import ArtifactError, RunError

LAYOUTS = ("folder", "triton", "ovms")
_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}
_MOST_BATCH, _DELAY_US = 32, 2000


def check_layout(layout: str, format: str, root: Path, name: str) -> None:
    """Raises ArtifactError for a format that these servers do not run, and for a name that is no plain word; RunError where
    `root` is no folder."""
    if format not in _BACKENDS:
        raise ArtifactError(
            f"layout = {layout}: runs formats onnx and openvino, not {format}. Choose one of these."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ArtifactError(f"name = {name!r}: expected letters, digits, _, . and -.")
    if root.exists() and not root.is_dir():
        raise RunError(f"out = {root}: is a file. Expected a folder, the model repository.")


def write_repository(artifact: Artifact, layout: str, root: Path, name: str) -> Path:
    """Add an artifact to a model repository as a new version of the model `name`; returns the version's folder, which appears
    complete, as servers may be watching.

    layout: "triton" or "ovms". Raises as `check_layout`, and RunError where another model has that name."""
    card = artifact.card
    check_layout(layout, card.format, root, name)
    model = root / name
    model.mkdir(parents=True, exist_ok=True)
    if layout == "triton":
        config = triton_config(artifact, name)
        existing = model / "config.pbtxt"
        if existing.is_file() and existing.read_text() != config:
            raise RunError(
                f"{existing}: is there already and describes another model. Choose another name or folder."
            )
        existing.write_text(config)
    # Not str.isdigit, which is true of ² as well.
    versions = [
        int(entry.name) for entry in model.iterdir() if re.fullmatch(r"[0-9]{1,18}", entry.name)
    ]
    version = model / str(max(versions, default=0) + 1)
    with tempfile.TemporaryDirectory(dir=root, prefix=".version-") as temporary:
        made = Path(temporary) / version.name
        made.mkdir()
        for file in (*card.files, CARD, CERTIFICATE):
            shutil.copy2(artifact.path / file, made / file)
        made.rename(version)
    return version


def triton_config(artifact: Artifact, name: str) -> str:
    """config.pbtxt. The first axis is the batch, which Triton does not want to be listed."""
    card = artifact.card

    def tensor(key: str, kind: str) -> str:
        sizes = ", ".join(str(-1 if size is None else size) for size in card.shapes[key][1:])
        return f'{{ name: "{key}", data_type: {kind}, dims: [ {sizes} ] }}'

    outputs = ",\n  ".join(tensor(output, "TYPE_FP32") for output in card.outputs)
    return (
        f'name: "{name}"\n'
        f'backend: "{_BACKENDS[card.format]}"\n'
        f'default_model_filename: "{ARTIFACT_FORMATS[card.format].file}"\n'
        f"max_batch_size: {_MOST_BATCH}\n"
        f"input [\n  {tensor(card.input, 'TYPE_UINT8' if card.input == 'pixels' else 'TYPE_FP32')}\n]\n"
        f"output [\n  {outputs}\n]\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_US} }}\n"
    )
