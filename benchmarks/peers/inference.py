"""Logits of a batch, beside timm and other engines."""

from __future__ import annotations

import copy
import importlib.util
import io
import tempfile
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from works import SIZE, Group, Work, batches, choose, dtype_name, precisions

from convnextv2.inference.backends import build_backend
from convnextv2.kernels import choice
from convnextv2.model.convnext import create_model


def groups(device: torch.device) -> list[Group]:
    """List the groups of inference."""
    found = []
    for dtype in precisions(device):
        for size in batches(device):
            for batch in (16, 1):
                build = partial(inference, size, dtype, batch=batch, device=device)
                group = Group(
                    "inference", build, batch, size, dtype_name(dtype), case=f"batch {batch}"
                )
                found.append(group)
    return found


def inference(
    size: str, dtype: torch.dtype, *, batch: int, device: torch.device
) -> dict[str, Work]:
    """Make the forward passes of all contestants."""
    import timm

    torch.manual_seed(0)
    images = torch.randn(batch, 3, SIZE, SIZE)
    nhwc = images.to(device, memory_format=torch.channels_last)

    def logits(model: Callable[[Tensor], Tensor], kernels: str) -> Work:
        def work() -> None:
            choose(kernels, device)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
            ):
                model(nhwc)

        return work

    theirs = timm.create_model(f"convnextv2_{size}").eval()
    theirs = theirs.to(device).to(memory_format=torch.channels_last)
    ours = create_model(f"convnextv2_{size}").eval().to(device)
    works = {
        "timm": logits(theirs, ""),
        "timm, compiled": logits(torch.compile(theirs, dynamic=False), ""),
        "convnextv2 (default)": logits(ours, "native"),
        "convnextv2, compiled": logits(torch.compile(ours, dynamic=False), "native"),
    }
    if device.type != "cpu":
        return works
    engine = build_backend("aoti", ours, images, dtype)  # as `export --format aoti` writes it
    works["convnextv2, ahead of time"] = lambda: engine(images)
    frozen = copy.deepcopy(theirs).to(dtype)
    works["timm, ahead of time, frozen"] = ahead_work(frozen, nhwc.to(dtype))
    plain_theirs = timm.create_model(f"convnextv2_{size}").eval()
    if dtype == torch.float32 and all(map(importlib.util.find_spec, ("onnxruntime", "onnxscript"))):
        works["timm in ONNX Runtime"] = onnx_work(plain_theirs, images)
    if importlib.util.find_spec("openvino"):
        choice.choose("plain")
        works["timm in OpenVINO"] = openvino_work(plain_theirs, images, dtype)
        works["convnextv2 in OpenVINO"] = openvino_work(ours, images, dtype)
    return works


def ahead_work(model: nn.Module, images: Tensor) -> Work:
    """Compile a model ahead of time with frozen weights, as our artifacts are."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        program = torch.export.export(model, (images,))
        path = f"{folder}/model.pt2"
        torch._inductor.aoti_compile_and_package(
            program, package_path=path, inductor_configs={"freezing": True}
        )
        run = torch._inductor.aoti_load_package(path)
    return lambda: run(images)


def onnx_work(model: nn.Module, images: Tensor) -> Work:
    """Put a model into ONNX Runtime, on as many threads as PyTorch has."""
    import onnxruntime

    file = io.BytesIO()
    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    program.save(file)  # type: ignore[union-attr]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, feed)


def openvino_work(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Work:
    """Put a model into OpenVINO, on as many threads as PyTorch has."""
    import openvino

    hint = "f32" if dtype == torch.float32 else "bf16"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(
        openvino.convert_model(model, example_input=images), "CPU", options
    )
    array = images.numpy()
    return lambda: compiled(array)
