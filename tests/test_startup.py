"""Packages that commands must not import at their start, since that takes longer than torch."""

import subprocess
import sys

import torch

from convnextv2.kernels import choice

VERBS = ("predict", "validate", "embed", "train")
HEAVY = {"torch._dynamo", "torchvision", "tensorboard"}


def test_no_verb_imports_torch_compile_or_torchvision_or_tensorboard() -> None:
    """Beyond what `import torch` does: one process imports it, and one verb after another."""
    modules = ["torch", *(f"convnextv2.verbs.{verb}" for verb in VERBS)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        f"    print(name, *sorted({HEAVY!r} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    found = {name: heavy for name, *heavy in map(str.split, run.stdout.splitlines())}
    assert list(found) == modules
    assert found == dict.fromkeys(modules, found["torch"])


def test_a_constant_is_marked_as_pytorch_does_it() -> None:
    def ours() -> bool:
        return True

    def theirs() -> bool:
        return True

    choice._constant(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs)
