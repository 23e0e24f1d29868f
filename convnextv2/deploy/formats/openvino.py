"""OpenVINO's intermediate representation (IR), run by OpenVINO."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from convnextv2.deploy.formats.artifact_format import (
    PRECISIONS,
    Array,
    ArtifactFormat,
    Files,
    Runner,
)
from convnextv2.deploy.formats.program import export_program, quiet
from convnextv2.deploy.graph import Exportable
from convnextv2.errors import DeviceError

if TYPE_CHECKING:
    from openvino import Core

_FILE, _WEIGHTS = "model.xml", "model.bin"
_NAMES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}
"""OpenVINO's names for the precisions."""


def _write(graph: Exportable, example: Tensor, path: Path, precision: str, dynamic: bool) -> None:
    # OpenVINO's converter adds a decomposition of convolution_backward to PyTorch's global table.
    # If the variable CI is set, TorchInductor of PyTorch 2.9 refuses to load after that. It is
    # therefore loaded first.
    import torch._inductor.lowering  # noqa: F401  # isort: skip

    import openvino

    with quiet():
        # The program is in float32; the device converts it to the arithmetic that it uses.
        model = openvino.convert_model(export_program(graph, example, "float32", dynamic))
    model.inputs[0].get_tensor().set_names({graph.input})
    for port, name in zip(model.outputs, graph.output_names, strict=True):
        port.get_tensor().set_names({name})
    # The conversion loses the sizes. A model without them would accept wrong shapes and return
    # nonsense.
    sizes = [-1, *example.shape[1:]]
    if dynamic:
        first = 1 if graph.input == "pixels" else 2
        sizes[first : first + 2] = [-1, -1]
    model.reshape(openvino.PartialShape(sizes))
    openvino.save_model(model, str(path), compress_to_fp16=precision == "float16")


@cache
def _core() -> Core:
    """Return the process's only `Core`, which is never destroyed.

    The CPU plugin of a core replaces the stack on which the calling thread handles signals. When
    plugins are destroyed in another order or by another thread, that stack is unmapped while it is
    in use, and the next signal that Python handles ends the process with SIGSEGV.
    """
    import openvino

    return openvino.Core()


def _open(files: Files, precision: str, threads: int) -> Runner:
    core = _core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _NAMES[precision] not in able:
        possible = ", ".join(sorted(set(able) & set(_NAMES.values())))
        raise DeviceError(
            f"precision = {precision}: OpenVINO computes in {possible} on this processor. Use one "
            "of these."
        )
    hint = {"float16": "f16", "bfloat16": "bf16"}.get(precision, "f32")
    model = core.read_model(files[_FILE], files[_WEIGHTS])
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    )
    outputs = range(len(compiled.outputs))

    def run(x: Array) -> list[Array]:
        found = compiled(x)
        # Copies, because the next call overwrites OpenVINO's own memory.
        return [np.array(found[i]) for i in outputs]

    return run


OPENVINO = ArtifactFormat(_FILE, ("openvino",), (), PRECISIONS, _write, _open)
