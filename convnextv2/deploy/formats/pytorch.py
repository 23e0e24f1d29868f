"""PyTorch's own formats: the exported program, and the program compiled ahead of time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import platform
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.deploy.formats.artifact_format import Array, ArtifactFormat, Files, Runner
from convnextv2.deploy.formats.program import export_program, quiet
from convnextv2.deploy.graph import Exportable
from convnextv2.errors import ArtifactError, DeviceError
from convnextv2.machine import processor_flags

_FILE = "model.pt2"
_PRECISIONS = ("float32", "float16", "bfloat16")
_FLAGS = {
    "AVX2": "avx2",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AMX_TILE": "amx_tile",
}
"""The sets of instructions that PyTorch compiles for, and what Linux calls them."""
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""The environment variable that makes `torch.load` safe, whatever its callers ask for."""


def _write_torch(
    graph: Exportable, example: Tensor, path: Path, precision: str, dynamic: bool
) -> None:
    program = export_program(graph, example, precision, dynamic)
    program._example_inputs = None  # they would be pickled, and nothing reads them
    torch.export.save(program, path)


def _open_torch(files: Files, precision: str, threads: int) -> Runner:
    content = io.BytesIO(files[_FILE])
    try:
        _check_constants(content)
        content.seek(0)
        with _plain_pickles():
            program = torch.export.load(content)
    except pickle.UnpicklingError:
        raise ArtifactError(
            "holds pickled objects, which could run code. Export the model again."
        ) from None
    return _as_runner(program.module())


def _check_constants(content: io.BytesIO) -> None:
    """Raise UnpicklingError if a constant is an object, since PyTorch would unpickle any object."""
    # PyTorch's own reader refuses the layout of older versions.
    with zipfile.ZipFile(content) as archive:
        for name in archive.namelist():
            if name.endswith("constants_config.json"):
                for constant in json.loads(archive.read(name))["config"].values():
                    if not constant["path_name"].startswith("tensor_"):
                        raise pickle.UnpicklingError


@contextlib.contextmanager
def _plain_pickles() -> Iterator[None]:
    """Allow only tensors and plain values to be unpickled.

    By default, `torch.export.load` unpickles any object.
    """
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def _write_aoti(
    graph: Exportable, example: Tensor, path: Path, precision: str, dynamic: bool
) -> None:
    with quiet(), torch.no_grad():
        program = export_program(graph, example, precision, dynamic)
        try:
            # Freezing stores the weights in the layout that suits the processor, and fuses GELU
            # with the layer before it.
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
        except RuntimeError as error:
            reason = next(
                (line for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            raise DeviceError(
                f"format aoti: PyTorch cannot compile it here ({reason[:160]}). Is there a C++ "
                "compiler?"
            ) from None


def _open_aoti(files: Files, precision: str, threads: int) -> Runner:
    content = io.BytesIO(files[_FILE])
    _check_processor(content)
    content.seek(0)
    try:
        # PyTorch unpacks the package to the temporary folder and loads the library from there.
        # Without a C++ compiler it calls the package outdated, and loads it all the same.
        with quiet():
            return _as_runner(torch._inductor.aoti_load_package(content))
    except RuntimeError as error:
        if "temporary directory" not in str(error):
            raise
        raise ArtifactError(
            "PyTorch cannot unpack it, as it can create no folder among the temporary files. Set "
            "TMPDIR to a folder that can be written."
        ) from None


def _check_processor(content: io.BytesIO) -> None:
    """Raise ArtifactError if code was compiled for a processor that is not of the kind of this one.

    PyTorch would only log that, and the first instruction that the processor lacks would end the
    process.
    """
    here, flags = platform.machine(), processor_flags()
    with zipfile.ZipFile(content) as archive:
        for name in archive.namelist():
            if not name.endswith("_metadata.json"):
                continue
            stated = json.loads(archive.read(name))
            machine = stated.get("AOTI_MACHINE", here)
            needed = map(_FLAGS.get, stated.get("AOTI_CPU_ISA", "").split())
            lacking = [flag for flag in needed if flag and flags and flag not in flags]
            if machine != here or lacking:
                kind = " with ".join([machine, *lacking[:1]])
                raise ArtifactError(
                    f"was compiled for another kind of processor ({kind}). Export the model on "
                    "this one, or in another format, such as onnx."
                )


def _as_runner(model: Callable[[Tensor], Any]) -> Runner:
    def run(x: Array) -> list[Array]:
        with torch.inference_mode():
            return [output.numpy() for output in model(torch.from_numpy(x))]

    return run


TORCH = ArtifactFormat(_FILE, (), (), _PRECISIONS, _write_torch, _open_torch)
AOTI = ArtifactFormat(_FILE, (), (), _PRECISIONS, _write_aoti, _open_aoti)
