"""The formats of artifacts: how a graph is written, and how what was written runs.

    torch      torch.export's program; runs in PyTorch, on any device
    aoti       compiled ahead of time by PyTorch; needs no Python of the model, for this kind of processor only
    onnx       ONNX, runs in ONNX Runtime; other engines (TensorRT, Triton, ...) read it too
    openvino   OpenVINO's IR

What an engine cannot compute is an error here, never another arithmetic in silence. Engines are given the content of files, not
their paths: a file that an engine maps into memory must not change or shrink while it is in use, and nobody can promise that.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.deploy.graph import Graph
from convnextv2.errors import ArtifactError, DeviceError, MissingPackageError

Array = NDArray[Any]
Runner = Callable[[Array], list[Array]]
"""From the input of any batch size to the outputs, in the graph's order. Safe to call from one thread at a time."""
Files = Mapping[str, bytes]
"""The files of an artifact: name to content."""

_TORCH_FILE, _ONNX_FILE, _OPENVINO_FILE, _OPENVINO_WEIGHTS = (
    "model.pt2",
    "model.onnx",
    "model.xml",
    "model.bin",
)

_ONNXRUNTIME_BY_OPSET = {
    18: (1, 14),
    19: (1, 15),
    20: (1, 17),
    21: (1, 18),
    22: (1, 21),
    23: (1, 22),
}
_ONNXRUNTIME_BY_IR = {8: (1, 14), 9: (1, 15), 10: (1, 18), 11: (1, 22)}
"""The first release that reads an opset, or a version of the file's form (IR)."""

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # of torch.load, over what its callers say

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
}


@dataclass(frozen=True)
class Format:
    """One format. file: the model's name in the artifact folder. engine, writer: packages that running and writing it need.
    write: (graph, example input, path, precision, dynamic image size). open: (files, precision, threads)."""

    file: str
    engine: tuple[str, ...]
    writer: tuple[str, ...]
    precisions: tuple[str, ...]
    write: Callable[[Graph, Tensor, Path, str, bool], None]
    open: Callable[[Files, str, int], Runner]


def check_format(name: str, precision: str, *, to_write: bool = False) -> Format:
    """The format of this name, once its packages are here and it knows the precision. Raises MissingPackageError, DeviceError."""
    chosen = FORMATS[name]
    for package in chosen.engine:
        if not find_spec(package):
            raise MissingPackageError(package, "engines")
    for package in chosen.writer if to_write else ():
        if not find_spec(package):
            raise MissingPackageError(package, "export")
    if precision not in chosen.precisions:
        raise DeviceError(
            f"precision = {precision}: format {name} has none of that kind. It has {', '.join(chosen.precisions)}."
        )
    return chosen


def read_files(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder that a format has just written.

    Args:
        folder: The folder, which holds files only.

    Returns:
        Name to content.
    """
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def installed_formats() -> list[str]:
    """Those that can be written and run here."""
    return [
        name
        for name, chosen in FORMATS.items()
        if all(map(find_spec, chosen.engine + chosen.writer))
    ]


# ---- PyTorch ----------------------------------------------------------------------------------------------------------------


def _program(
    graph: Graph, example: Tensor, precision: str, dynamic: bool
) -> torch.export.ExportedProgram:
    """The graph in the precision's arithmetic, for any batch size, and where `dynamic` for any multiple of the total stride."""
    graph.model.to(DTYPES[precision])
    batch, stride = torch.export.Dim("batch", min=1, max=4096), graph.model.total_stride
    shape: dict[int, Any] = {0: batch}
    if dynamic:
        first = 2 if graph.input == "images" else 1
        shape |= {
            first + i: stride * torch.export.Dim(name, min=1, max=512)
            for i, name in enumerate(("rows", "columns"))
        }
    # An example of two: one is taken for a constant.
    example = example[:1].expand(2, *example.shape[1:]).contiguous()
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=(shape,))


def _write_torch(graph: Graph, example: Tensor, path: Path, precision: str, dynamic: bool) -> None:
    program = _program(graph, example, precision, dynamic)
    program._example_inputs = None  # they would be pickled, and nothing reads them
    torch.export.save(program, path)


def _open_torch(files: Files, precision: str, threads: int) -> Runner:
    content = io.BytesIO(files[_TORCH_FILE])
    try:
        _check_constants(content)
        content.seek(0)
        with _plain_pickles():
            program = torch.export.load(content)
    except pickle.UnpicklingError:
        raise ArtifactError(
            "holds pickled objects, which could run code. Export the model again."
        ) from None
    return _torch_runner(program.module())


def _check_constants(content: io.BytesIO) -> None:
    """Raises UnpicklingError where there are objects among them: these are unpickled whatever they are."""
    with zipfile.ZipFile(
        content
    ) as archive:  # PyTorch's own reader refuses the layout of older versions
        for name in archive.namelist():
            if name.endswith("constants_config.json"):
                for constant in json.loads(archive.read(name))["config"].values():
                    if not constant["path_name"].startswith("tensor_"):
                        raise pickle.UnpicklingError


@contextlib.contextmanager
def _plain_pickles() -> Iterator[None]:
    """What is unpickled meanwhile may hold tensors and plain values only; `torch.export.load` by itself takes anything."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def _write_aoti(graph: Graph, example: Tensor, path: Path, precision: str, dynamic: bool) -> None:
    with _quiet(), torch.no_grad():
        program = _program(graph, example, precision, dynamic)
        try:
            # Frozen: weights are laid out for the processor once and for all, and GELU becomes part of the layer before it.
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
        except RuntimeError as error:
            reason = next(
                (line for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            raise DeviceError(
                f"format aoti: PyTorch cannot compile it here ({reason[:160]}). Is there a C++ compiler?"
            ) from None


def _open_aoti(files: Files, precision: str, threads: int) -> Runner:
    # PyTorch unpacks the package to the temporary folder and loads the library from there.
    return _torch_runner(torch._inductor.aoti_load_package(io.BytesIO(files[_TORCH_FILE])))


def _torch_runner(model: Callable[[Tensor], Any]) -> Runner:
    def run(x: Array) -> list[Array]:
        with torch.inference_mode():
            return [output.numpy() for output in model(torch.from_numpy(x))]

    return run


# ---- ONNX -------------------------------------------------------------------------------------------------------------------


def _write_onnx(graph: Graph, example: Tensor, path: Path, precision: str, dynamic: bool) -> None:
    with _quiet():
        program = torch.onnx.export(
            _program(graph, example, precision, dynamic),
            dynamo=True,
            verbose=False,
            input_names=[graph.input],
            output_names=list(graph.output_names),
        )
    assert program is not None
    _name_sizes(program.model.graph)
    program.save(str(path), external_data=False)


def _name_sizes(graph: Any) -> None:
    """Give the open sizes of an ONNX graph names that say what they are, in place of PyTorch's s77.

    Args:
        graph: onnx_ir's graph with one input, of which the batch and, where any image size is taken, height and width are open.
    """
    import onnx_ir

    (given,) = graph.inputs
    open_axes = [axis for axis, size in enumerate(given.shape) if not isinstance(size, int)]
    names = {
        str(given.shape[axis]): name
        for axis, name in zip(open_axes, ("batch", "height", "width"), strict=False)
    }
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.shape is not None:
            sizes = [
                size if isinstance(size, int) else names.get(str(size), str(size))
                for size in value.shape
            ]
            value.shape = onnx_ir.Shape(sizes)


def onnx_needs(content: bytes) -> dict[str, str]:
    """What it takes to run an ONNX file.

    Args:
        content: The file.

    Returns:
        The file's opset, the version of its form, and the least ONNX Runtime that reads both.
    """
    import onnx

    model = onnx.load_from_string(content)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset in _ONNXRUNTIME_BY_OPSET and model.ir_version in _ONNXRUNTIME_BY_IR:
        least = max(_ONNXRUNTIME_BY_OPSET[opset], _ONNXRUNTIME_BY_IR[model.ir_version])
        text = ".".join(map(str, least))
    else:  # newer than this table: the engine that it is measured in reads it
        import onnxruntime

        text = onnxruntime.__version__
    return {"opset": str(opset), "ir_version": str(model.ir_version), "onnxruntime": f">={text}"}


def _open_onnx(files: Files, precision: str, threads: int) -> Runner:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would wait in a loop for more work, on the cores that decode the next images: a sixth of the throughput.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    weights = {
        name: content for name, content in files.items() if name != _ONNX_FILE
    }  # of models above 2 GB
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [len(content) for content in weights.values()]
        )
    try:
        session = onnxruntime.InferenceSession(
            files[_ONNX_FILE], options, providers=["CPUExecutionProvider"]
        )
    except (states.NotImplemented, states.InvalidGraph) as error:
        raise DeviceError(
            f"precision = {precision}: ONNX Runtime has no such arithmetic on the CPU "
            f"({str(error).splitlines()[0].rpartition(':')[2].strip()[:160]}). Use float32."
        ) from None
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


# ---- OpenVINO ---------------------------------------------------------------------------------------------------------------


def _write_openvino(
    graph: Graph, example: Tensor, path: Path, precision: str, dynamic: bool
) -> None:
    # OpenVINO's converter adds a decomposition of convolution_backward to PyTorch's global table.
    # Where CI is set, TorchInductor of PyTorch 2.9 refuses to load after that, so it is loaded first.
    import torch._inductor.lowering  # noqa: F401  # isort: skip

    import openvino

    with _quiet():
        # In float32: the device converts to what it computes in.
        model = openvino.convert_model(_program(graph, example, "float32", dynamic))
    model.inputs[0].get_tensor().set_names({graph.input})
    for port, name in zip(model.outputs, graph.output_names, strict=True):
        port.get_tensor().set_names({name})
    # The conversion forgets the sizes, and a model that takes any shape answers nonsense to a wrong one.
    sizes = [-1, *example.shape[1:]]
    if dynamic:
        first = 1 if graph.input == "pixels" else 2
        sizes[first : first + 2] = [-1, -1]
    model.reshape(openvino.PartialShape(sizes))
    openvino.save_model(model, str(path), compress_to_fp16=precision == "float16")


def _open_openvino(files: Files, precision: str, threads: int) -> Runner:
    import openvino

    core = openvino.Core()
    name = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}[precision]
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if name not in able:
        raise DeviceError(
            f"precision = {precision}: OpenVINO computes in {', '.join(sorted(set(able) & {'FP32', 'FP16', 'BF16', 'INT8'}))} on "
            "this processor. Use one of these."
        )
    hint = {"float16": "f16", "bfloat16": "bf16"}.get(precision, "f32")
    model = core.read_model(files[_OPENVINO_FILE], files[_OPENVINO_WEIGHTS])
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    )
    outputs = range(len(compiled.outputs))

    def run(x: Array) -> list[Array]:
        found = compiled(x)
        return [
            np.array(found[i]) for i in outputs
        ]  # the engine's own memory is overwritten by the next call

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn and log about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


FORMATS = {
    "torch": Format(
        _TORCH_FILE, (), (), ("float32", "float16", "bfloat16"), _write_torch, _open_torch
    ),
    "aoti": Format(
        _TORCH_FILE, (), (), ("float32", "float16", "bfloat16"), _write_aoti, _open_aoti
    ),
    "onnx": Format(
        _ONNX_FILE, ("onnxruntime",), ("onnx", "onnxscript"), PRECISIONS, _write_onnx, _open_onnx
    ),
    "openvino": Format(
        _OPENVINO_FILE, ("openvino",), (), PRECISIONS, _write_openvino, _open_openvino
    ),
}
