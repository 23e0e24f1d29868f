"""Write ONNX files for transformers.js, which runs classifiers in browsers and in Node."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.deploy.formats import ARTIFACT_FORMATS
from convnextv2.deploy.graph import Graph
from convnextv2.model.convnext import ConvNeXtV2

FILES = {"model.onnx": "float32", "model_quantized.onnx": "int8 weights"}
"""The files that transformers.js expects in onnx/. It uses the second one on WebAssembly."""


class _BrowserGraph(Graph):
    """A classifier with the input and the output that transformers.js expects."""

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("logits",)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (super().forward(x)[0],)


@dataclass(frozen=True)
class Agreement:
    """The agreement of a file with the model on some images.

    Attributes:
        images: The number of images.
        same_top1: The share of them with the same most probable class.
        max_difference: The largest difference of a probability.
    """

    images: int
    same_top1: float
    max_difference: float


def missing_packages() -> list[str]:
    """Return the names of the packages that are needed to write the files and are not installed."""
    form = ARTIFACT_FORMATS["onnx"]
    needed = {*form.run_packages, *form.write_packages, "onnxruntime"}
    return sorted(name for name in needed if not find_spec(name))


def write_browser_files(model: ConvNeXtV2, folder: Path, images: Tensor) -> dict[str, Agreement]:
    """Write the files for transformers.js, and compare them with the model.

    Args:
        model: The classifier in evaluation mode, float32, on the CPU. It is not changed.
        folder: The folder to create: onnx/ in the folder of the repository.
        images: The images to compare on, normalised, float32 (N, C, H, W).

    Returns:
        The agreement of each file.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    form = ARTIFACT_FORMATS["onnx"]
    folder.mkdir(parents=True, exist_ok=True)
    whole, small = (folder / name for name in FILES)
    graph = _BrowserGraph(model, "classifier")
    graph.input = "pixel_values"  # type: ignore[assignment]
    form.write(graph, images[:1], whole, "float32", False)
    # Matrix products hold almost all weights. Convolutions in integers are slow on WebAssembly.
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises a step that has been done
    try:
        quantize_dynamic(
            whole, small, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QUInt8
        )
    finally:
        root.setLevel(level)
    with torch.inference_mode():
        wanted = model(images).softmax(-1).numpy()
    return {path.name: _compare(path, wanted, images) for path in (whole, small)}


def _compare(path: Path, wanted: NDArray[np.float32], images: Tensor) -> Agreement:
    form = ARTIFACT_FORMATS["onnx"]
    files = {form.file: path.read_bytes()}
    runner = form.open(files, "float32", torch.get_num_threads())
    found = torch.from_numpy(runner(images.numpy())[0]).softmax(-1).numpy()
    same = float((found.argmax(-1) == wanted.argmax(-1)).mean())
    return Agreement(len(images), same, float(np.abs(found - wanted).max()))
