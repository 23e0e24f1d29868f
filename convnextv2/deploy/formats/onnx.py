"""ONNX, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.deploy.formats.artifact_format import PRECISIONS, ArtifactFormat, Files, Runner
from convnextv2.deploy.formats.program import export_program, quiet
from convnextv2.deploy.graph import Exportable
from convnextv2.errors import DeviceError

_FILE = "model.onnx"

_RUNTIME_BY_OPSET = {18: (1, 14), 19: (1, 15), 20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 22)}
"""The first release of ONNX Runtime that reads an opset."""

_RUNTIME_BY_IR = {8: (1, 14), 9: (1, 15), 10: (1, 18), 11: (1, 22)}
"""The first release of ONNX Runtime that reads an IR version."""


def _write(graph: Exportable, example: Tensor, path: Path, precision: str, dynamic: bool) -> None:
    with quiet():
        program = torch.onnx.export(
            export_program(graph, example, precision, dynamic),
            dynamo=True,
            verbose=False,
            input_names=[graph.input],
            output_names=list(graph.output_names),
        )
    assert program is not None
    _name_sizes(program.model.graph)
    program.save(str(path), external_data=False)


def _name_sizes(graph: Any) -> None:
    """Name the dynamic sizes of an ONNX graph batch, height and width, instead of s77 and the like.

    Args:
        graph: onnx_ir's graph with one input. Its batch is dynamic and, if it takes images of any
            size, its height and width are.
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
    """Return the requirements of an ONNX file.

    Args:
        content: The content of the file.

    Returns:
        Its opset, its IR version, and the oldest ONNX Runtime that reads both.
    """
    import onnx

    model = onnx.load_from_string(content)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset in _RUNTIME_BY_OPSET and model.ir_version in _RUNTIME_BY_IR:
        oldest = max(_RUNTIME_BY_OPSET[opset], _RUNTIME_BY_IR[model.ir_version])
        text = ".".join(map(str, oldest))
    else:  # newer than these tables; it is measured in this runtime, which can thus read it
        import onnxruntime

        text = onnxruntime.__version__
    return {"opset": str(opset), "ir_version": str(model.ir_version), "onnxruntime": f">={text}"}


def _open(files: Files, precision: str, threads: int) -> Runner:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # By default, its idle threads spin on the cores that decode the next images, which costs a
    # sixth of the throughput.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Models above 2 GB have their weights in files of their own.
    weights = {name: content for name, content in files.items() if name != _FILE}
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [len(content) for content in weights.values()]
        )
    try:
        session = onnxruntime.InferenceSession(
            files[_FILE], options, providers=["CPUExecutionProvider"]
        )
    except (states.NotImplemented, states.InvalidGraph) as error:
        raise DeviceError(
            f"precision = {precision}: ONNX Runtime has no such arithmetic on the CPU "
            f"({str(error).splitlines()[0].rpartition(':')[2].strip()[:160]}). Use float32."
        ) from None
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


ONNX = ArtifactFormat(_FILE, ("onnxruntime",), ("onnx", "onnxscript"), PRECISIONS, _write, _open)
