"""What can compute a model's logits on this machine: PyTorch in several forms, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from convnextv2.errors import DeviceError, MissingPackageError

Engine = Callable[[Tensor], Tensor]

ENGINES = ("eager", "compiled", "aoti", "onnxruntime", "openvino")
_NEEDS = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}


def installed_engines() -> list[str]:
    """Those of `ENGINES` whose packages are here."""
    return [name for name in ENGINES if all(find_spec(package) for package in _NEEDS.get(name, ()))]


def build_engine(name: str, model: nn.Module, images: Tensor, dtype: torch.dtype) -> Engine:
    """A function from images of one shape to float32 logits.

    name: of `ENGINES`. model: in evaluation mode. images: float32 (N, C, H, W), an example of that shape on the model's device.
    dtype: of the arithmetic. Raises MissingPackageError, and DeviceError where the engine has no such arithmetic or device."""
    for package in _NEEDS.get(name, ()):
        if not find_spec(package):
            raise MissingPackageError(package, "export")
    if name in _NEEDS and images.device.type != "cpu":
        raise DeviceError(f"backend = {name}: runs on the CPU here. Use device cpu, or eager, compiled or aoti.")
    if name == "onnxruntime":
        if dtype != torch.float32:
            raise DeviceError(f"backend = onnxruntime: has no {dtype} on the CPU. Use precision float32.")
        return _onnxruntime(model, images)
    if name == "openvino":
        return _openvino(model, images, dtype)

    autocast = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)
    forward: Callable[[Tensor], Tensor] = model
    if name == "compiled":
        forward = torch.compile(model, dynamic=False)
    elif name == "aoti":
        forward = _aoti(model, images, autocast)

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast:
            return forward(images).float()

    return run


def _aoti(model: nn.Module, images: Tensor, autocast: torch.autocast) -> Callable[[Tensor], Tensor]:
    """PyTorch's ahead-of-time compiler; needs a C++ compiler."""
    with torch.no_grad(), autocast, tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(model, (images,))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder) / "model.pt2"))
        loaded: Callable[[Tensor], Tensor] = torch._inductor.aoti_load_package(path)
    return loaded


def _onnxruntime(model: nn.Module, images: Tensor) -> Engine:
    import onnxruntime

    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        program.save(path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _openvino(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Engine:
    import openvino

    precision = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(openvino.convert_model(model, example_input=images), "CPU", options)
    return lambda images: torch.from_numpy(compiled(images.numpy())[0])
