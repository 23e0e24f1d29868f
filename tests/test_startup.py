"""What commands do not import at their start, because it takes longer than torch itself."""

import subprocess
import sys

import pytest
import torch

from convnextv2.kernels import choice

HEAVY = {"torch._dynamo", "torchvision", "tensorboard"}


def imported(module: str) -> set[str]:
    code = f"import sys, {module}\nprint(*({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("verb", ["predict", "validate", "embed", "train"])
def test_a_verb_imports_neither_torch_compile_nor_torchvision_nor_tensorboard(verb: str) -> None:
    assert imported(f"convnextv2.verbs.{verb}") <= imported("torch")


def test_a_constant_is_marked_as_pytorch_does_it() -> None:
    def ours() -> bool:
        return True

    def theirs() -> bool:
        return True

    choice._constant(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs)
