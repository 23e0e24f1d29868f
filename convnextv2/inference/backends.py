"""The engines that can run a model here: PyTorch eager, compiled, or ahead of time; ONNX Runtime; OpenVINO."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from convnextv2.deploy.formats import check_format, installed_formats, read_files
from convnextv2.deploy.graph import Graph
from convnextv2.errors import DeviceError
from convnextv2.model.convnext import ConvNeXtV2

Engine = Callable[[Tensor], Tensor]

_FORMATS = {"aoti": "aoti", "onnxruntime": "onnx", "openvino": "openvino"}
ENGINES = ("eager", "compiled", *_FORMATS)


def installed_engines() -> list[str]:
    """Those of `ENGINES` whose packages are here."""
    return [name for name in ENGINES if _FORMATS.get(name) in (None, *installed_formats())]


def build_engine(name: str, model: ConvNeXtV2, images: Tensor, dtype: torch.dtype) -> Engine:
    """A function from images of one shape to float32 logits.

    name: of `ENGINES`. model: in evaluation mode. images: float32 (N, C, H, W), an example of that shape on the model's device.
    dtype: of the arithmetic. Raises MissingPackageError, and DeviceError where the engine has no such arithmetic or device."""
    if name in _FORMATS:
        return _exported(_FORMATS[name], model, images, dtype)
    autocast = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)
    forward: nn.Module | Callable[[Tensor], Tensor] = (
        model if name == "eager" else torch.compile(model, dynamic=False)
    )

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast:
            return forward(images).float()

    return run


def _exported(name: str, model: ConvNeXtV2, images: Tensor, dtype: torch.dtype) -> Engine:
    if images.device.type != "cpu":
        raise DeviceError(
            f"format {name}: runs on the CPU here. Use device cpu, or the backends eager or compiled."
        )
    precision = str(dtype).removeprefix("torch.")
    chosen = check_format(name, precision, to_write=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / chosen.file
        # As users get it: for any batch size.
        chosen.write(
            Graph(copy.deepcopy(model), "classifier").eval(),
            images.contiguous(),
            path,
            precision,
            False,
        )
        runner = chosen.open(read_files(path.parent), precision, torch.get_num_threads())
    return lambda images: torch.from_numpy(runner(images.numpy())[0])
