"""The library of this process, which is loaded at its first use.

It is the one that the wheel carries, or one that was compiled here. It is compared with PyTorch
whenever it is loaded from a wheel, and once after it is compiled.
"""

from __future__ import annotations

import ctypes
from functools import cache, partial

import torch
from torch import Tensor

from convnextv2.kernels.build import load_library
from convnextv2.kernels.bundled import load_bundled
from convnextv2.kernels.selfcheck import disagreement

_SUFFIX = {torch.float32: "float", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}


def load() -> ctypes.CDLL | str:
    """Return the library, or why there is none."""
    return _loaded()[0]


def level() -> str:
    """Return the level of instructions of a library from a wheel; "" for any other library."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | str, str]:
    def check(library: ctypes.CDLL) -> str:
        return disagreement(partial(_call_in, library))

    return load_bundled(check) or (load_library(check), "")


def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Call a function of the library, which writes its result into one of the arguments.

    Args:
        name: The function's name without the suffix for its dtype.
        x: A tensor whose dtype decides which variant is called.
        *arguments: The arguments of the function, in order. Nothing is checked: every tensor must
            be contiguous and of the length that the C++ code expects.

    Raises:
        MemoryError: There is not enough memory for the function's buffers.
    """
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
    function.restype, function.argtypes = ctypes.c_int, [*types, ctypes.c_int]
    if function(*values, torch.get_num_threads()):
        raise MemoryError(f"not enough memory for the kernel {name}")


def floats(values: Tensor) -> Tensor:
    """Convert values to the form that the library reads, contiguous float32.

    The parameters of a model that was cast to another dtype have another form.
    """
    return values.float().contiguous()
