"""The comparison of a library that was just built."""

import pytest
from torch import Tensor

from convnextv2.kernels import choice, library
from convnextv2.kernels.selfcheck import disagreement

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")


def test_a_library_that_computes_something_else_is_found_out() -> None:
    def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
        library.call(name, x, *arguments)
        if name == wrong:
            out = arguments[-1]
            assert isinstance(out, Tensor)
            out.flatten()[-1] = float(out.flatten()[-1]) + float(out.float().abs().max())

    wrong = ""
    assert disagreement(call) == ""
    for wrong in (
        "depthwise",
        "depthwise_weight",
        "gelu_squares",
        "gelu_scale",
        "gelu_products",
        "gelu_backward",
        "cross_entropy",
        "cross_entropy_gradient",
        "largest_class",
    ):
        assert disagreement(call).startswith(f"{wrong} in torch.float32 differs by")
