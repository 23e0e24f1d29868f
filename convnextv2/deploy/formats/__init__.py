"""The formats of artifacts: writing a graph in each of them, and opening it.

    torch      torch.export's program; runs in PyTorch, on any device
    aoti       compiled ahead of time by PyTorch, without Python code of the model; runs only on
               processors of the same kind
    onnx       ONNX; runs in ONNX Runtime and in other engines, such as TensorRT
    openvino   OpenVINO's intermediate representation

If an engine cannot compute in a precision, that is an error. The precision is never replaced
silently.

Engines are given the content of files, not their paths. If an engine mapped a file into memory, the
file would have to stay unchanged for as long as it is in use, which cannot be guaranteed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from convnextv2.deploy.formats.artifact_format import ArtifactFormat
from convnextv2.deploy.formats.onnx import ONNX
from convnextv2.deploy.formats.openvino import OPENVINO
from convnextv2.deploy.formats.pytorch import AOTI, TORCH
from convnextv2.errors import DeviceError, MissingPackageError

# A new name also belongs to `deploy.names.FormatName`; to `deploy.repository` if other servers run
# it, to `inference.backends` for the benchmark, and to `deploy.quantise` for int8.
ARTIFACT_FORMATS = {"torch": TORCH, "aoti": AOTI, "onnx": ONNX, "openvino": OPENVINO}


def check_format(name: str, precision: str, *, to_write: bool = False) -> ArtifactFormat:
    """Find a format, and check that it can be used here.

    Args:
        name: A key of `ARTIFACT_FORMATS`.
        precision: The artifact's precision.
        to_write: Whether an artifact is to be written, and not only opened.

    Returns:
        The format.

    Raises:
        MissingPackageError: A package is not installed.
        DeviceError: The format does not have the precision.
    """
    chosen = ARTIFACT_FORMATS[name]
    for package in chosen.run_packages:
        if not find_spec(package):
            raise MissingPackageError(package, "engines")
    for package in chosen.write_packages if to_write else ():
        if not find_spec(package):
            raise MissingPackageError(package, "export")
    if precision not in chosen.precisions:
        raise DeviceError(
            f"precision = {precision}: format {name} does not have it. It has "
            f"{', '.join(chosen.precisions)}."
        )
    return chosen


def read_files(folder: Path) -> dict[str, bytes]:
    """Read every file in a folder that a format has just written.

    Args:
        folder: The folder, which holds files only.

    Returns:
        Name to content.
    """
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def installed_formats() -> list[str]:
    """Return the names of the formats that can be written and run here."""
    return [
        name
        for name, chosen in ARTIFACT_FORMATS.items()
        if all(map(find_spec, chosen.run_packages + chosen.write_packages))
    ]
