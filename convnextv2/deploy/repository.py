"""Add an artifact to a model repository of NVIDIA Triton or OpenVINO Model Server.

A repository has this layout:

    NAME/config.pbtxt   Triton's description: inputs, outputs, batching
    NAME/1/model.onnx   (or model.xml and model.bin)
    NAME/1/artifact.json, certificate.json
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from convnextv2.deploy.artifact import CARD, CERTIFICATE, Artifact
from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.errors import ArtifactError, RunError
from convnextv2.evaluation.unknown import UNKNOWN
from convnextv2.files import write_text
from convnextv2.lock import building
from convnextv2.places import check_place

_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Triton's names of the backends, by format."""

_MAX_BATCH, _DELAY_US = 32, 2000


def check_layout(layout: str, format: str, root: Path, name: str) -> None:
    """Check that a model repository can take an artifact.

    Args:
        layout: "triton" or "ovms".
        format: The artifact's format.
        root: The repository's folder, which need not exist.
        name: The model's name in the repository.

    Raises:
        ArtifactError: These servers do not run the format, or the name has other characters.
        RunError: The root is a file.
        RecipeError: Nothing can be written there.
    """
    if format not in _BACKENDS:
        raise ArtifactError(
            f"layout = {layout}: runs formats onnx and openvino, not {format}. Choose one of these."
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ArtifactError(f"name = {name!r}: expected letters, digits, _, . and -.")
    if root.exists() and not root.is_dir():
        raise RunError(f"out = {root}: is a file. Expected a folder, the model repository.")
    check_place(root / name)


def write_repository(artifact: Artifact, layout: str, root: Path, name: str) -> Path:
    """Add an artifact to a model repository as a new version of a model.

    Args:
        artifact: The artifact.
        layout: "triton" or "ovms".
        root: The repository's folder.
        name: The model's name.

    Returns:
        The version's folder. It appears with all files at once, because servers may be watching.

    Raises:
        ArtifactError: See `check_layout`.
        RunError: The root is a file, another model has that name, or another process adds to it.
        RecipeError: Nothing can be written there.
    """
    card = artifact.card
    check_layout(layout, card.format, root, name)
    model = root / name
    with building(model) as temporary:
        model.mkdir(exist_ok=True)
        if layout == "triton":
            config = triton_config(artifact, name)
            existing = model / "config.pbtxt"
            if existing.is_file() and existing.read_text() != config:
                raise RunError(
                    f"{existing}: exists already and describes another model. Choose another "
                    "name or folder."
                )
            write_text(existing, config)
        # Not str.isdigit, which is true of ² as well.
        versions = [
            int(entry.name) for entry in model.iterdir() if re.fullmatch(r"[0-9]{1,18}", entry.name)
        ]
        version = model / str(max(versions, default=0) + 1)
        made = temporary / version.name
        made.mkdir()
        unknown = [UNKNOWN] if card.unknown else []
        for file in (*card.files, CARD, CERTIFICATE, *unknown):
            shutil.copy2(artifact.path / file, made / file)
        made.rename(version)
    return version


def triton_config(artifact: Artifact, name: str) -> str:
    """Return Triton's description of a model.

    Args:
        artifact: The artifact.
        name: The model's name.

    Returns:
        The text of config.pbtxt.
    """
    card = artifact.card

    def tensor(key: str, kind: str) -> str:
        # The first axis is the batch, which Triton expects not to be listed.
        sizes = ", ".join(str(-1 if size is None else size) for size in card.shapes[key][1:])
        return f'{{ name: "{key}", data_type: {kind}, dims: [ {sizes} ] }}'

    kind = "TYPE_UINT8" if card.input == "pixels" else "TYPE_FP32"
    outputs = ",\n  ".join(tensor(output, "TYPE_FP32") for output in card.outputs)
    return (
        f'name: "{name}"\n'
        f'backend: "{_BACKENDS[card.format]}"\n'
        f'default_model_filename: "{ARTIFACT_FORMATS[card.format].file}"\n'
        f"max_batch_size: {_MAX_BATCH}\n"
        f"input [\n  {tensor(card.input, kind)}\n]\n"
        f"output [\n  {outputs}\n]\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_US} }}\n"
    )
