"""The choice of kernels, within the limits of a tensor, a graph and this machine."""

from pathlib import Path

import pytest
import torch
from kernels.reference import both_kernels
from processes import run_program

from convnextv2.kernels import choice, operations
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.layers import DepthwiseConv

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")


def test_in_autocast_to_float16_the_plain_forms_run() -> None:
    conv, x = DepthwiseConv(8), torch.randn(1, 4, 4, 8)
    torch.nn.init.normal_(conv.weight)
    with torch.autocast("cpu", torch.float16):
        found, expected = both_kernels(lambda: conv(x))
    assert found.dtype == expected.dtype == torch.float16
    assert torch.equal(found, expected)


def test_a_choice_holds_in_what_was_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    call = operations.call
    monkeypatch.setattr(
        operations, "call", lambda name, *arguments: calls.append(name) or call(name, *arguments)
    )
    conv, x = DepthwiseConv(8), torch.randn(1, 4, 4, 8)
    compiled, another = (
        torch.compile(module, backend="aot_eager") for module in (conv, DepthwiseConv(8))
    )
    try:
        for module in (compiled, another):
            for name, expected in (("plain", []), ("native", ["depthwise"]), ("plain", [])):
                choice.choose(name)
                calls.clear()
                with torch.no_grad():
                    module(x)
                assert calls == expected
    finally:
        choice.choose("auto")


def test_an_exported_graph_has_plain_operations() -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=3).eval()
    graph = torch.export.export(model, (torch.randn(1, 3, 32, 32),)).graph
    assert not [node for node in graph.nodes if "convnextv2" in str(node.target)]


def test_without_a_compiler_the_plain_forms_run(tmp_path: Path) -> None:
    code = (
        "from convnextv2.kernels import choice\n"
        "print(choice.choose('auto'))\n"
        "choice.choose('native')"
    )
    environment = {"CXX": "no-such-compiler", "CONVNEXTV2_CACHE": str(tmp_path)}
    _, printed, errors = run_program("-c", code, **environment)
    assert printed.startswith("plain (no-such-compiler did not build them")
    assert (
        "DeviceError: kernels = native: no-such-compiler did not build them" in errors
        and not list(tmp_path.iterdir())
    )


def test_plain_can_be_chosen() -> None:
    try:
        assert choice.choose("plain") == "plain" and not choice.are_used_for(torch.ones(1))
    finally:
        choice.choose("auto")


def test_the_first_use_may_be_inside_inference_and_autocast(tmp_path: Path) -> None:
    script = """
import torch
from convnextv2.model.convnext import create_model
from convnextv2.kernels import choice
model = torch.compile(create_model("convnextv2_atto", num_classes=3).eval(), backend="eager")
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    model(torch.rand(1, 3, 32, 32))
print(choice.choose("auto"))
"""
    code, printed, errors = run_program("-c", script, CONVNEXTV2_CACHE=str(tmp_path))
    assert (code, printed) == (0, "native\n"), errors
