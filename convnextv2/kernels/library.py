"""The library of this process: loaded when it is first asked for, compared with PyTorch if it was just built, and called."""

from __future__ import annotations

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from convnextv2.kernels.build import load_library
from convnextv2.kernels.selfcheck import disagreement

_SUFFIX = {torch.float32: "float", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}


@cache
def load() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    return load_library(lambda library: disagreement(partial(_call_in, library)))


def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Call `name` of the library in its form for x's dtype; every tensor is contiguous and of the length that the C++ says."""
    library = load()
    assert not isinstance(library, str)
    _call_in(library, name, x, *arguments)


def _call_in(library: ctypes.CDLL, name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    values = [
        argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments
    ]
    types = [
        ctypes.c_int64 if isinstance(argument, int) else ctypes.c_void_p for argument in arguments
    ]
    function = getattr(library, f"{name}_{_SUFFIX[x.dtype]}")
    function.restype, function.argtypes = None, [*types, ctypes.c_int]
    function(*values, torch.get_num_threads())


def floats(values: Tensor) -> Tensor:
    """As the library reads them: of a model that was cast to another dtype, too."""
    return values.float().contiguous()
