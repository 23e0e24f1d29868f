import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convnextv2.distributed import Place
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.training import memory
from convnextv2.training.memory import (
    memory_notes,
    out_of_memory,
    out_of_memory_text,
    peak_of_step,
)


def forward(model: nn.Module, n: int) -> Tensor:
    return model(torch.empty(n, 3, 64, 64, device="meta")).sum()


def test_the_peak_of_a_chain_is_counted_by_hand() -> None:
    """Bytes of float32 for 7 images of 10 numbers, through 20 to 1."""
    chain = nn.Sequential(nn.Linear(10, 20, bias=False), nn.ReLU(), nn.Linear(20, 1, bias=False))
    peak = peak_of_step(chain, lambda model: model(torch.zeros(7, 10, device="meta")).sum())
    weights, images, hidden = 4 * (200 + 20), 4 * 70, 4 * 140
    # The peak is where the gradient of the hidden layer goes through the ReLU: its output, which is
    # kept, the gradient before and the gradient after are alive, and so is that of the last layer.
    # Smaller tensors are at most the result, its gradient and their sums: 7 + 7 + 1 + 1 numbers.
    least = weights + images + 3 * hidden + 4 * 20
    assert least <= peak <= least + 4 * 16


def test_recomputed_activations_count_where_they_are_alive() -> None:
    def peak(**options: bool) -> int:
        model = ConvNeXtV2((4, 1, 1, 1), (16, 16, 16, 16), num_classes=3, **options)
        return peak_of_step(model, lambda on_meta: forward(on_meta, 2))

    plain, checkpointed = peak(), peak(grad_checkpoint=True)
    block = 2 * 16 * 16 * 64 * 4  # bytes of the widest tensor of a block of the first stage
    assert 2 * block < checkpointed < 0.6 * plain


PEAK = """
import torch
from convnextv2.model.convnext import create_model
from convnextv2.kernels import choice
from convnextv2.training.memory import ALLOCATOR, estimate
choice.choose("plain")
model = create_model("convnextv2_atto", num_classes=3)
def forward(model, n):
    return model(torch.zeros(n, 3, 160, 160, device=next(model.parameters()).device)).sum()
def kib(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
need = estimate(model, forward, averaged=False, precision=torch.float32)
forward(model, 1).backward()  # what libraries load with the first step is not part of it
start = kib("VmRSS")
forward(model, 24).backward()
print(1024 * (kib("VmHWM") - start) / (24 * need.per_image), ALLOCATOR)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
def test_the_estimate_is_what_a_process_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    ratio, allowed = map(float, done.stdout.split())
    assert 0.7 < ratio < allowed


def test_only_an_exhausted_memory_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB, ...)."),
        RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ):
        assert out_of_memory(error)
    for error in (
        RuntimeError("shapes cannot be multiplied"),
        ValueError("out of memory"),
        IndexError("index 7 is out of bounds"),
        KeyboardInterrupt(),
    ):
        assert not out_of_memory(error)


def test_what_to_do_about_it_is_one_line_that_keeps_the_global_batch() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 ...")
    text = out_of_memory_text(error, batch_size=48, accumulate=2, device=torch.device("cuda:1"))
    assert text == (
        "batch_size = 48: the memory of cuda:1 is used up (20.00 MiB more were requested). Use "
        "--batch_size auto, which finds what fits and keeps the images of a step; or --batch_size "
        "24 --accumulate 4, which keeps them too; or --grad_checkpoint True, which takes less "
        "memory and more time."
    )
    text = out_of_memory_text(MemoryError(), batch_size=1, accumulate=2, device=torch.device("cpu"))
    assert text == (
        "batch_size = 1: the memory of cpu is used up. Use --grad_checkpoint True, which takes "
        "less memory and more time."
    )
    text = out_of_memory_text(MemoryError(), batch_size=7, accumulate=2, device=torch.device("cpu"))
    assert "--batch_size 1 --accumulate 14," in text


def test_a_batch_that_does_not_fit_is_named_with_one_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3)
    arguments = {"averaged": False, "precision": torch.float32, "place": Place(torch.device("cpu"))}
    monkeypatch.setattr(memory, "available_memory", lambda device: 50 * 2**20)
    assert memory_notes(model, forward, batch_size=4, **arguments) == []
    (note,) = memory_notes(model, forward, batch_size=4096, **arguments)
    fits = int(note.split("batch_size of ")[1].split()[0])
    assert memory_notes(model, forward, batch_size=fits, **arguments) == []
    assert memory_notes(model, forward, batch_size=fits + 1, **arguments)
    # With a part of weights and moments only, more images fit.
    assert memory_notes(model, forward, batch_size=fits + 1, **arguments, shards=64) == []


def test_a_batch_that_fits_easily_is_known_after_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3)
    arguments = {"averaged": True, "precision": torch.float32, "place": Place(torch.device("cpu"))}
    steps = []

    def counted(model: nn.Module, n: int) -> Tensor:
        steps.append(n)
        return forward(model, n)

    monkeypatch.setattr(memory, "available_memory", lambda device: 2**30)
    assert memory_notes(model, counted, batch_size=64, **arguments) == []
    assert len(steps) == 1


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_what_one_step_tells_hides_no_note(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, averaged: bool
) -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=3)
    need = memory.estimate(model, forward, averaged=averaged, precision=torch.float32)
    whole = int(need.fixed + batch_size * need.per_image)
    for free, notes in ((whole - 1, 1), (whole + 1, 0)):
        monkeypatch.setattr(memory, "available_memory", lambda device, free=free: free)
        told = memory_notes(
            model, forward, batch_size=batch_size, averaged=averaged, precision=torch.float32,
            place=Place(torch.device("cpu")),
        )  # fmt: skip
        assert len(told) == notes
