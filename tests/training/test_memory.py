import pytest
import torch
from torch import Tensor, nn

from convnextv2.distributed import Place
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.kernels import native
from convnextv2.training import memory
from convnextv2.training.memory import memory_notes, saved_for_backward


def forward(model: nn.Module, n: int) -> Tensor:
    return model(torch.empty(n, 3, 64, 64, device="meta")).sum()


def test_a_linear_layer_keeps_its_input() -> None:
    layer = nn.Linear(10, 20)
    kept = saved_for_backward(layer, lambda model: model(torch.empty(7, 10, device="meta")).sum())
    assert kept == 7 * 10 * 4


def test_the_count_is_that_of_a_real_forward_pass() -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    native.choose("plain")  # what the count is of; the native kernels keep less
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(2, 3, 64, 64)).sum()
    finally:
        native.choose("auto")
    real = sum(size for pointer, (_, size) in kept.items() if pointer not in own)
    assert saved_for_backward(model, lambda m: forward(m, 2)) == pytest.approx(real, rel=0.02)


def test_a_batch_that_does_not_fit_is_named_with_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3)
    arguments = {"averaged": False, "precision": torch.float32, "place": Place(torch.device("cpu"))}
    monkeypatch.setattr(memory, "available_memory", lambda device: 50 * 2**20)
    assert memory_notes(model, forward, batch_size=4, **arguments) == []
    (note,) = memory_notes(model, forward, batch_size=4096, **arguments)
    fits = int(note.split("batch_size of ")[1].split()[0])
    assert memory_notes(model, forward, batch_size=fits, **arguments) == []
    assert memory_notes(model, forward, batch_size=fits + 1, **arguments)
