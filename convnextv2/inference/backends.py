"""The backends: PyTorch eager, compiled or ahead of time, ONNX Runtime, and OpenVINO."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convnextv2.deploy.formats import check_format, installed_formats, read_files
from convnextv2.deploy.graph import Graph
from convnextv2.device import autocast
from convnextv2.errors import DeviceError
from convnextv2.files import system_scratch
from convnextv2.model.convnext import ConvNeXtV2

_FORMATS = {"aoti": "aoti", "onnxruntime": "onnx", "openvino": "openvino"}
"""The backends that run an artifact, and its format."""

BACKENDS = ("eager", "compiled", *_FORMATS)


def installed_backends() -> list[str]:
    """Return those of `BACKENDS` whose packages are installed."""
    return [name for name in BACKENDS if _FORMATS.get(name) in (None, *installed_formats())]


def build_backend(
    name: str, model: ConvNeXtV2, images: Tensor, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Build a function from images to logits.

    Args:
        name: One of `BACKENDS`.
        model: The classifier in evaluation mode. It is not changed.
        images: An example of the images, float32 (N, C, H, W), on the model's device.
        dtype: The type of the arithmetic.

    Returns:
        The function, for images of that shape. Its logits are float32 (N, classes).

    Raises:
        MissingPackageError: A package is not installed.
        DeviceError: The backend does not have this arithmetic or this device.
    """
    if name in _FORMATS:
        return _exported(_FORMATS[name], model, images, dtype)
    in_precision = autocast(images.device, dtype)
    forward: nn.Module | Callable[[Tensor], Tensor] = (
        model if name == "eager" else torch.compile(model, dynamic=False)
    )

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode(), in_precision:
            return forward(images).float()

    return run


def _exported(
    name: str, model: ConvNeXtV2, images: Tensor, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Write the model in a format for any batch size, as users get it, and open it."""
    if images.device.type != "cpu":
        raise DeviceError(
            f"format {name}: runs on the CPU here. Use device cpu, or the backends eager or "
            "compiled."
        )
    precision = str(dtype).removeprefix("torch.")
    chosen = check_format(name, precision, to_write=True)
    with system_scratch("export") as folder:
        path = folder / chosen.file
        graph = Graph(copy.deepcopy(model), "classifier").eval()
        chosen.write(graph, images.contiguous(), path, precision, False)
        runner = chosen.open(read_files(path.parent), precision, torch.get_num_threads())
    return lambda images: torch.from_numpy(runner(images.numpy())[0])
