"""The forward pass on a GPU that is not there: fake tensors know the device and the shapes.

They have no numbers, so that reading one on the host, for which a GPU would have to be waited for,
is an error. The backward pass needs a real device.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.cuda.amp import common
from torch.utils._python_dispatch import TorchDispatchMode

from convnextv2.kernels import choice
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is None, reason="PyTorch without CUDA"),
    pytest.mark.skipif(
        torch.__version__ < (2, 14), reason="PyTorch 2.9 asks for a driver even for fake tensors"
    ),
]
GPU = torch.device("cuda", 0)
DEPTHS = (2, 2, 6, 2)  # of atto


def move(model: nn.Module) -> None:
    """Give a model without memory fake parameters on the GPU."""
    for module in model.modules():
        for name, own in module._parameters.items():
            if own is not None:
                fake = torch.empty_strided(own.shape, own.stride(), dtype=own.dtype, device=GPU)
                module._parameters[name] = nn.Parameter(fake)


class Calls(TorchDispatchMode):
    """Counts the operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        self.names[str(function.overloadpacket)] += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=["auto", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(choice, "reason_against", lambda index, dtype=None: "")
    monkeypatch.setattr(common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    choice.choose(request.param, GPU)
    yield request.param
    choice.choose("auto")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_of_pretraining_reads_nothing_on_the_host(dtype: torch.dtype, kernels: str) -> None:
    with torch.device("meta"):
        model = FCMAE(create_model("convnextv2_atto", num_classes=None, drop_path_rate=0.1))
    with FakeTensorMode(), torch.device(GPU):
        move(model)
        images = torch.empty(2, 3, 224, 224)
        visible, masked = (torch.empty(2, count, dtype=torch.int64) for count in (19, 30))
        with Calls() as calls, torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = model(images, visible, masked)
    assert loss.device == GPU and loss.dtype == torch.float32 and loss.requires_grad
    blocks = sum(DEPTHS) + 1
    expected = Counter() if kernels == "plain" else ours(blocks, norms=blocks + 4)
    assert {name: n for name, n in calls.names.items() if "convnextv2" in name} == expected
    assert ("aten.convolution" in calls.names) == (kernels == "plain")


def test_a_supervised_step_reads_nothing_on_the_host(kernels: str) -> None:
    with torch.device("meta"):
        model = create_model("convnextv2_atto", num_classes=5, drop_path_rate=0.1)
    with FakeTensorMode(), torch.device(GPU):
        move(model)
        images, targets = torch.empty(2, 3, 64, 96), torch.empty(2, dtype=torch.int64)
        with Calls() as calls, torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
    assert loss.device == GPU and loss.requires_grad
    blocks = sum(DEPTHS)
    expected = Counter() if kernels == "plain" else ours(blocks, norms=blocks + 5)
    assert {name: n for name, n in calls.names.items() if "convnextv2" in name} == expected


def ours(blocks: int, norms: int) -> dict[str, int]:
    """Return the expected number of calls of each operation in the forward pass."""
    names = dict.fromkeys(("depthwise", "gelu_squares", "gelu_scale"), blocks)
    return {f"convnextv2.{name}": n for name, n in (names | {"layer_norm": norms}).items()}


def test_the_dtype_of_autocast_is_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution of float32 activations under autocast computes in the dtype of autocast."""
    asked: list[torch.dtype] = []
    monkeypatch.setattr(choice, "reason_against", lambda index, dtype: asked.append(dtype) or "no")
    with FakeTensorMode(), torch.device(GPU):
        x = torch.empty(1, 2, 2, 8)
        assert not choice.are_used_for(x) and asked == [torch.float32]
        monkeypatch.setattr(choice, "reason_against", lambda index, dtype: asked.append(dtype))
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
        assert choice.are_used_for(x) and asked[1:] == [torch.float32, torch.bfloat16]
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.float64)
        assert not choice.are_used_for(x) and len(asked) == 3


def test_inference_does_not_take_the_form_for_the_cpu(kernels: str) -> None:
    with torch.device("meta"):
        model = create_model("convnextv2_atto", num_classes=5)
    with FakeTensorMode(), torch.device(GPU), torch.no_grad(), Calls() as calls:
        move(model)
        assert model(torch.empty(2, 3, 64, 64)).is_cuda
    assert "convnextv2.linear_gelu" not in calls.names
    assert ("convnextv2.gelu_scale" in calls.names) == (kernels == "auto")
