"""Steps of masked pre-training: visible tiles beside masked-dense code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from masked_dense import MaskedDense, check
from supervised import supervised
from torch import Tensor, nn
from works import (
    SIZE,
    Group,
    Work,
    batches,
    dtype_name,
    has_kernels,
    precisions,
    random_images,
    step,
)

from convnextv2.kernels import choice
from convnextv2.model.convnext import create_model
from convnextv2.model.fcmae import FCMAE, draw_masks

RATIO = 0.6
DENSE, DEFAULT = "masked-dense", "visible tiles (default)"
# Name -> (is masked-dense, is compiled, kernels).
CONTESTANTS = {
    DENSE: (True, False, "plain"),
    "masked-dense, compiled": (True, True, "plain"),
    "masked-dense, our kernels": (True, False, "native"),
    "visible tiles, PyTorch's kernels": (False, False, "plain"),
    "visible tiles, PyTorch's kernels, compiled": (False, True, "plain"),
    "visible tiles, compiled": (False, True, "native"),
    DEFAULT: (False, False, "native"),
}
EAGER = (DENSE, "masked-dense, our kernels", "visible tiles, PyTorch's kernels", DEFAULT)
BOTH = (DENSE, DEFAULT)


def groups(device: torch.device) -> list[Group]:
    """List the groups of masked pre-training."""
    best_dtype = precisions(device)[-1]
    both = has_kernels(device)  # elsewhere there is one kind of kernels
    tiles = "visible tiles, PyTorch's kernels, compiled" if both else "visible tiles, compiled"
    found = []
    for size, batch in batches(device).items():
        build = partial(validity, size, batch=batch, device=device)
        found.append(Group("validity", build, batch, size, "float32"))
        build = partial(best, size, best_dtype, batch=batch, device=device)
        found.append(Group("best-fcmae", build, batch, size))
    for dtype in precisions(device):
        for size, batch in batches(device).items():
            build = partial(fcmae, size, dtype, batch=batch, device=device)
            group = partial(
                Group,
                build=build,
                images=batch,
                model=size,
                precision=dtype_name(dtype),
                memory_of=BOTH,
            )
            found.append(group("fcmae", contestants=EAGER))
            # A compiled model is traced anew when the choice of kernels changes, so a group with
            # compiled contestants has one choice.
            one_kind = ("masked-dense, compiled", tiles)
            found.append(group("compiled-fcmae", contestants=one_kind, memory_of=()))
            if both:
                native = (DEFAULT, "visible tiles, compiled")
                found.append(group("compiled-fcmae-native", contestants=native, memory_of=()))
    return found + curves(best_dtype, device)


def curves(dtype: torch.dtype, device: torch.device) -> list[Group]:
    """List the groups from which the curves are drawn: mask ratio, image size, batch."""
    build = partial(fcmae, "atto", dtype, device=device)
    group = partial(
        Group, model="atto", precision=dtype_name(dtype), contestants=BOTH, memory_of=BOTH
    )
    found = []
    for ratio in (0.25, 0.5, 0.75, 0.9):
        one = partial(build, batch=32, mask_ratio=ratio)
        found.append(group("fcmae-ratio", one, 32, case=str(ratio), x=ratio))
    for side in (96, 160, 288):
        one = partial(build, batch=16, image_size=side)
        found.append(group("fcmae-size", one, 16, case=str(side), x=side))
    for batch in (4, 16, 64):
        one = partial(build, batch=batch)
        found.append(group("fcmae-batch", one, batch, case=str(batch), x=batch))
    return found


def masks_of(
    batch: int, image_size: int, mask_ratio: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw the visible and the masked tiles, the same for every contestant."""
    grid = (image_size // 32, image_size // 32)
    visible, masked = draw_masks(batch, grid, mask_ratio, torch.Generator().manual_seed(0))
    return visible.to(device), masked.to(device)


def fcmae(
    size: str,
    dtype: torch.dtype,
    *,
    batch: int,
    device: torch.device,
    image_size: int = SIZE,
    mask_ratio: float = RATIO,
    only: Sequence[str] = tuple(CONTESTANTS),
) -> dict[str, Work]:
    """Make the steps of masked pre-training of the contestants that are named."""
    images = random_images(batch, device, image_size)
    masks = masks_of(batch, image_size, mask_ratio, device)
    works: dict[str, Work] = {}
    for name, (is_dense, is_compiled, kernels) in CONTESTANTS.items():
        if name not in only:
            continue
        if not has_kernels(device) and "kernels" in name:
            continue  # it would be the same as another contestant there
        model = FCMAE(create_model(f"convnextv2_{size}", num_classes=None)).to(device)
        choice.choose("plain")
        assert check(model, images[:2], *(mask[:2] for mask in masks)) < 1e-4
        used: nn.Module = MaskedDense(model) if is_dense else model
        called = torch.compile(used, dynamic=False) if is_compiled else used
        works[name] = step(used, partial(called, images, *masks), dtype, kernels, device)
    return works


def best(size: str, dtype: torch.dtype, *, batch: int, device: torch.device) -> dict[str, Work]:
    """Make what shows a user's gain over masked-dense code as it comes: eager, in float32."""
    works = fcmae(size, torch.float32, batch=batch, device=device, only=(DENSE,))
    [ours] = fcmae(size, dtype, batch=batch, device=device, only=(DEFAULT,)).values()
    return works | {f"{DEFAULT}, {dtype_name(dtype)}": ours}


def validity(size: str, *, batch: int, device: torch.device) -> dict[str, Work]:
    """Make what shows whether the masked-dense encoder is honestly fast.

    It is its forward and backward pass, beside timm's supervised step.
    """
    encoder = MaskedDense(FCMAE(create_model(f"convnextv2_{size}", num_classes=None))).to(device)
    images = random_images(batch, device)
    visible, _ = masks_of(batch, SIZE, RATIO, device)

    def work() -> None:
        choice.choose("plain")
        encoder.encoded(images, visible).sum().backward()
        encoder.zero_grad()

    works = supervised(size, torch.float32, batch=batch, device=device, only=("timm",))
    return works | {"masked-dense encoder, forward and backward": work}
