"""The reasons why a GPU cannot use the kernels, tested on a machine without a GPU."""

from collections.abc import Iterator

import pytest
import torch

from convnextv2.errors import DeviceError
from convnextv2.kernels import choice, gpus

GPU = torch.device("cuda", 3)


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(gpus, "find_spec", lambda name: True)
    gpus.reason_against.cache_clear()
    yield
    gpus.reason_against.cache_clear()
    choice.choose("auto")


def broken(*_: object, on_gpu: bool) -> str:
    raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable")


@pytest.mark.parametrize(
    ("where", "name", "value", "reason"),
    [
        (torch.version, "cuda", None, "PyTorch is not built for CUDA"),
        (gpus, "find_spec", lambda name: None, "Triton is not installed"),
        (
            torch.cuda,
            "get_device_capability",
            lambda index: (7, 5),
            "the GPU has compute capability 7.5, and the kernels need 8.0",
        ),
        (gpus, "disagreement", broken, "Triton did not build them: Failed to find C compiler."),
        (
            gpus,
            "disagreement",
            lambda *_, on_gpu: "depthwise in torch.float32 differs by 1",
            "depthwise",
        ),
    ],
    ids=["CUDA", "Triton", "old", "compiler", "wrong"],
)
def test_the_reason_is_said(
    where: object,
    name: str,
    value: object,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(where, name, value)
    assert choice.choose("auto", GPU).startswith(f"plain ({reason}")
    assert choice.in_use(GPU) == "PyTorch's"
    # An unexpected reason is printed once, since no verb prints it.
    assert capsys.readouterr().err.count(reason) == (name == "disagreement")
    with pytest.raises(DeviceError, match="^kernels = native: .*Use auto or plain.$"):
        choice.choose("native", GPU)


def test_kernels_that_agree_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    asked: list[torch.dtype] = []

    def agree(call: object, tolerances: dict[torch.dtype, float], *, on_gpu: bool) -> str:
        asked.extend(tolerances)
        return ""

    monkeypatch.setattr(gpus, "disagreement", agree)
    assert choice.choose("native", GPU) == choice.choose("auto", GPU) == "native"
    assert choice.in_use(GPU) == "Triton" and asked == [torch.float32]
    # The dtypes of activations are asked for as they come.
    assert choice._are_on_gpu(3, torch.bfloat16) and choice._are_on_gpu(3, torch.bfloat16)
    assert asked == [torch.float32, torch.bfloat16]
    assert choice.choose("plain", GPU) == "plain" and choice.in_use(GPU) == "PyTorch's"


def test_kernels_that_are_insisted_on_and_differ_in_a_dtype_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("triton")

    def agree(call: object, tolerances: dict[torch.dtype, float], *, on_gpu: bool) -> str:
        return "" if torch.float32 in tolerances else "gelu_scale in torch.float16 differs by 1"

    monkeypatch.setattr(gpus, "disagreement", agree)
    assert choice.choose("auto", GPU) == "native"
    assert not choice._are_on_gpu(3, torch.float16)
    assert choice.choose("native", GPU) == "native"
    with pytest.raises(DeviceError, match="kernels = native: gelu_scale in torch.float16"):
        choice._are_on_gpu(3, torch.float16)


def test_other_devices_have_none() -> None:
    assert choice.choose("auto", torch.device("mps")) == "plain (there are none for mps)"
    with pytest.raises(DeviceError, match="kernels = native: there are none for mps"):
        choice.choose("native", torch.device("mps"))
    assert not choice.are_used_for(torch.empty(1, device="meta"))


def test_float32_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check runs once, although the verb and the first tensor both ask for it."""
    pytest.importorskip("triton")
    asked: list[torch.dtype] = []
    monkeypatch.setattr(gpus, "disagreement", lambda _, dtypes, **__: asked.extend(dtypes) or "")
    assert choice.choose("auto", GPU) == "native" and choice._are_on_gpu(3, torch.float32)
    assert asked == [torch.float32]
