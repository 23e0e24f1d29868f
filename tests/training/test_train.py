from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.train import _over_ranks, build_scaler, data_parallel_options

CPU = torch.device("cpu")


def test_the_loss_is_scaled_from_loss_scale_on_in_float16_only() -> None:
    assert build_scaler(1024.0, torch.float16, CPU).get_scale() == 1024
    assert not build_scaler(1024.0, torch.bfloat16, CPU).is_enabled()


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_gradients_are_exchanged_without_a_copy() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    wrapped = _over_ranks(Recipe(), model, Place(CPU, 0, 2))
    assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
    wrapped(torch.randn(5, 3)).square().sum().backward()
    # All gradients lie in one bucket.
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == 4
    assert len({gradient.untyped_storage().data_ptr() for gradient in gradients}) == 1


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize(("device", "syncs"), [("cuda:0", False), ("xpu:0", True), ("cpu", True)])
def test_statistics_that_span_ranks_are_not_sent_again(device: str, syncs: bool) -> None:
    options = data_parallel_options(nn.BatchNorm1d(3), torch.device(device))
    options.pop("device_ids", None)
    wrapped = nn.parallel.DistributedDataParallel(nn.BatchNorm1d(3), **options)
    assert wrapped.will_sync_module_buffers() == syncs
    assert "False" not in str(data_parallel_options(nn.Linear(3, 3), torch.device(device)))
