"""Checks an installed wheel that carries the kernels: they load without a compiler and compute.

    python scripts/check_wheel.py [FILE]

Run it with the Python of the environment that has the wheel, outside the checkout. It prints which
level of instructions was taken and a hash of what the kernels computed, and writes the figures to
FILE if one is named, for a comparison bit by bit. It fails if the kernels were not those of the
wheel.
"""

from __future__ import annotations

import hashlib
import os
import sys

# Only the standard library and the wheel: no compiler can be found.
os.environ["PATH"] = "/nonexistent"
os.environ.pop("CXX", None)

import torch  # noqa: E402

from convnextv2.kernels import choice, library  # noqa: E402
from convnextv2.model.convnext import create_model  # noqa: E402


def compute() -> list[torch.Tensor]:
    """Return logits and gradients of a small network, in both precisions."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model, images = create_model("convnextv2_atto", num_classes=10), torch.randn(2, 3, 64, 64)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model(images)
        logits.float().square().sum().backward()
        found += [logits.detach().float(), *(each.grad for each in model.parameters())]
    return found


def main() -> int:
    """Load, compute and print."""
    torch.set_num_threads(1)
    chosen, level = choice.choose("auto"), library.level()
    figures = compute()
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in figures)).hexdigest()
    print(f"kernels {choice.in_use()}, {library.__file__}")
    print(f"figures {digest}")
    if len(sys.argv) > 1:
        torch.save(figures, sys.argv[1])
    if chosen != "native" or not level:
        print(f"error: the kernels are {chosen}, and not those of a wheel", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
