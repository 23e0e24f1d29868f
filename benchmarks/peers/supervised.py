"""Steps of supervised training, beside timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from works import Group, Work, batches, dtype_name, has_kernels, precisions, random_images, step

from convnextv2.model.convnext import create_model

# Name -> (is timm's, is compiled, kernels).
CONTESTANTS = {
    "timm": (True, False, ""),
    "timm, compiled": (True, True, ""),
    "convnextv2, PyTorch's kernels": (False, False, "plain"),
    "convnextv2 (default)": (False, False, "native"),
    "convnextv2, compiled": (False, True, "native"),
}
TRAIN = ("timm", "timm, compiled", "convnextv2 (default)", "convnextv2, compiled")
EAGER = ("timm", "convnextv2, PyTorch's kernels", "convnextv2 (default)")
MEMORY_OF = ("convnextv2 (default)", "timm", "timm, compiled")


def groups(device: torch.device) -> list[Group]:
    """List the groups of supervised training."""
    found = []
    for dtype in precisions(device):
        for size, batch in batches(device).items():
            build = partial(supervised, size, dtype, batch=batch, device=device)
            group = partial(
                Group, build=build, images=batch, model=size, precision=dtype_name(dtype)
            )
            found.append(group("train", contestants=TRAIN, memory_of=MEMORY_OF, needs="timm"))
            if has_kernels(device):  # elsewhere there is one kind of kernels
                found.append(group("eager-train", contestants=EAGER))
    return found


def supervised(
    size: str,
    dtype: torch.dtype,
    *,
    batch: int,
    device: torch.device,
    only: Sequence[str] = tuple(CONTESTANTS),
) -> dict[str, Work]:
    """Make the steps of supervised training of the contestants that are named."""
    import timm

    images = random_images(batch, device)
    targets = torch.randint(1000, (batch,)).to(device)
    works: dict[str, Work] = {}
    for name, (is_timm, is_compiled, kernels) in CONTESTANTS.items():
        if name not in only:
            continue
        if not has_kernels(device) and "kernels" in name:
            continue  # it would be the same as another contestant there
        build = timm.create_model if is_timm else create_model
        model = build(f"convnextv2_{size}").to(device).to(memory_format=torch.channels_last).train()
        called = torch.compile(model, dynamic=False) if is_compiled else model

        def loss_of(called: Callable[[Tensor], Tensor] = called) -> Tensor:
            return nn.functional.cross_entropy(called(images).float(), targets)

        works[name] = step(model, loss_of, dtype, kernels, device)
    return works
