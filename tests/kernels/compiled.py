"""Compiles the kernels for GPUs that this machine does not have, and looks at what came out.

No test by its name: `test_gpu` runs it in a process of its own, as

    python tests/kernels/compiled.py 80 90
"""

import re
import subprocess
import sys
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from convnextv2.kernels.gpu import depthwise, gelu_grn, layer_norm

POINTERS = {
    **dict.fromkeys(("x", "y", "gradient", "result", "of_x"), "*bf16"),
    **dict.fromkeys(("weight", "bias", "scale", "shift", "pull", "partial"), "*fp32"),
    **dict.fromkeys(("means", "rstds"), "*fp32"),
    "places": "*i64",
    "runs": "*i32",
    "eps": "fp32",
}
TILES = {"C": 96, "RUN": 8, "TILES": True, "POSITIONS": depthwise._POSITIONS, "CHANNELS": 32}
GRN = {"C": 384, "TANH": False, "POSITIONS": gelu_grn._POSITIONS, "CHANNELS": 64}
NORM = dict(zip(("CHANNELS", "POSITIONS"), layer_norm._blocks(96), strict=False))
CASES = [
    (depthwise._forward, TILES | {"BIAS": True}),
    (depthwise._weight_gradient, TILES),
    (gelu_grn._products, GRN),
    (gelu_grn._backward, GRN | {"TANH": True}),
    (layer_norm._forward, NORM | {"C": 96}),
    (layer_norm._backward, NORM | {"C": 96}),
]


def check(kernel: triton.JITFunction, constants: dict[str, int | bool], capability: int) -> None:
    """Compile as a launch with whole tensors of 16-byte alignment would, in bfloat16."""
    names = kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] == "*"
    }
    values = {(names.index(name),): value for name, value in constants.items()}
    built = triton.compile(
        ASTSource(kernel, signature, values, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4},
    )
    assert built.asm["cubin"]
    code = built.asm["ptx"]
    assert "ld.global.v4" in code and not re.search(r"ld\.global\.b16", code), kernel.__name__
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(code)
        file.flush()
        gpu = f"--gpu-name=sm_{capability}" + "a" * (capability >= 90)
        ptxas = [triton.knobs.nvidia.ptxas.path, "-v", gpu, file.name, "-o", "/dev/null"]
        told = subprocess.run(ptxas, capture_output=True, text=True, check=True).stderr
    spilled = re.search(r"(\d+) bytes spill stores", told)  # a few are the assembler's own choice
    assert spilled and int(spilled[1]) <= 16, f"{kernel.__name__} for {capability}: {told}"


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for each, constants in CASES:
            check(each, constants, capability)
