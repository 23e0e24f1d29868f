"""The kernels for GPUs, run on the CPU by Triton's interpreter.

This file is not a test by its name: `test_gpu` runs it in a process of its own, since Triton reads
TRITON_INTERPRET when a kernel is defined. Here the operations of `kernels.operations` compute with
Triton on the CPU, so that the gradients of `kernels.functional` are tested with them.

A program costs about a second for the convolution, whatever its block of positions, so most cases
enlarge that until one program is enough.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
import triton
from kernels.reference import gradients, relative
from torch import Tensor
from torch.nn.grad import conv2d_weight

from convnextv2.kernels import checks, functional
from convnextv2.kernels.gpu import call, depthwise, gelu_grn, layer_norm
from convnextv2.kernels.operations import checked  # this module defines what is overridden here
from convnextv2.kernels.run_table import run_table
from convnextv2.kernels.selfcheck import GPU, disagreement
from convnextv2.model.layers import GlobalResponseNorm
from convnextv2.model.tiles import Tiles

# The interpreter cuts numbers off where a GPU rounds them to bfloat16.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}
assert triton.knobs.runtime.interpret, "run by test_gpu.py"
KERNELS = torch.library.Library("convnextv2", "IMPL")
for module, names in (
    (depthwise, ("depthwise", "depthwise_weight")),
    (gelu_grn, ("gelu_squares", "gelu_scale", "gelu_products", "gelu_backward")),
    (layer_norm, ("layer_norm", "layer_norm_backward")),
):
    for name in names:
        run = checked(getattr(checks, name, checks.sums), getattr(module, name))
        KERNELS.impl(name, run, "CPU", allow_override=True)


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(depthwise, "_POSITIONS", 256)
    yield


def surrounded(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise in the middle of memory that is not a number, which a wild address would meet."""
    numbers = torch.randn(*shape).to(dtype)
    memory = torch.full((numbers.numel() + 8192,), float("nan"), dtype=dtype)
    inside = memory[4096:-4096].view(shape)
    return inside.copy_(numbers)


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=3, groups=len(weight))
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 1, 1, 5), torch.float32),
        ((1, 7, 7, 16), torch.bfloat16),
        ((1, 7, 7, 16), torch.float16),
        ((2, 9, 13, 20), torch.float32),
    ],
    ids=str,
)
def test_depthwise_convolution_of_dense_images(
    shape: tuple[int, ...], dtype: torch.dtype, one_program: None
) -> None:
    torch.manual_seed(0)
    x, gy, c = surrounded(*shape, dtype=dtype), torch.randn(shape).to(dtype), shape[-1]
    weight, bias = torch.randn(c, 1, 7, 7), torch.randn(c)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    y64 = convolved(*exact)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = functional.depthwise(*leaves, None, shape[1:3])
    assert y.dtype == dtype
    found = [y, *gradients(y, gy, leaves)]
    for result, expected in zip(found, [y64, *gradients(y64, gy, exact)], strict=True):
        assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("side", [8, 4, 2, 1])
def test_depthwise_convolution_of_visible_tiles(side: int, one_program: None) -> None:
    """Two of six tiles are visible, at corners and edges, with and without a neighbour."""
    torch.manual_seed(0)
    grid, c = (2, 3), 5
    tiles = Tiles(torch.tensor([[0, 5], [1, 4]]), grid)
    canvas = tiles.canvas(side)
    assert canvas.runs is None
    runs = surrounded_table(run_table(canvas.rows, 2, canvas.size, side))
    x, gy = surrounded(2, 2, side, side, c), torch.randn(2, 2, side, side, c)
    weight, bias = torch.randn(c, 1, 7, 7), torch.randn(c)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    y64 = canvas.pick(convolved(canvas.paint(exact[0]), *exact[1:]))
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = functional.depthwise(
        leaves[0].flatten(1, -3), *leaves[1:], canvas.rows, canvas.size, runs
    ).view(x.shape)
    found, expected = [y], [y64]
    if side in (4, 1):  # the gradients read the same way
        found += gradients(y, gy, leaves)
        expected += gradients(y64, gy, exact)
    for result, known in zip(found, expected, strict=True):
        assert relative(result, known) < TOLERANCE[torch.float32]


def surrounded_table(table: Tensor) -> Tensor:
    memory = torch.full((table.numel() + 2048,), 10**6, dtype=table.dtype)
    return memory[1024:-1024].copy_(table)


def test_a_convolution_in_many_programs_repeats_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two blocks of positions and two of channels, of which the second is not full."""
    torch.manual_seed(0)
    monkeypatch.setattr(depthwise, "_POSITIONS", 16)
    monkeypatch.setattr(depthwise, "channel_block", lambda channels, largest: 16)
    c = 20
    x, gy, weight = surrounded(1, 4, 5, c), torch.randn(1, 4, 5, c), torch.randn(c, 1, 7, 7)
    taps, shape = weight.permute(2, 3, 1, 0).reshape(49, -1), [1, 4, 5, 4, 5, c]
    y = depthwise.depthwise(x, taps, None, None, None, shape)
    both = depthwise.depthwise_weight(x, gy, None, None, shape)
    x64, gy64 = (tensor.double().permute(0, 3, 1, 2) for tensor in (x, gy))
    expected = F.conv2d(x64, weight.double(), padding=3, groups=c)
    assert relative(y.permute(0, 3, 1, 2), expected) < TOLERANCE[torch.float32]
    of_weight = conv2d_weight(x64, [c, 1, 7, 7], gy64, padding=3, groups=c)
    assert relative(both[:49].T, of_weight.flatten(1)) < TOLERANCE[torch.float32]
    assert relative(both[49], gy64.sum((0, 2, 3))) < TOLERANCE[torch.float32]
    assert torch.equal(both, depthwise.depthwise_weight(x, gy, None, None, shape))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", ["none", "tanh"])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_gelu_and_grn(dtype: torch.dtype, form: str, scope: str) -> None:
    torch.manual_seed(0)
    # Values reach both tails of GELU, and one channel is 0 everywhere.
    x = surrounded(2, 9, 9, 20, dtype=dtype).mul_(3)
    x[..., 5] = 0
    gy, norm = torch.randn(x.shape), GlobalResponseNorm(20, scope)
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    double = GlobalResponseNorm(20, scope).double()
    double.load_state_dict(norm.state_dict())
    x64 = x.double().requires_grad_()
    y64 = double(F.gelu(x64, approximate=form))
    x.requires_grad_()

    def run() -> list[Tensor]:
        y = functional.gelu_grn(
            x, norm.gamma, norm.beta,
            images=2 if scope == "image" else 1, eps=norm.eps, tanh=form == "tanh",
        )  # fmt: skip
        assert y.dtype == dtype
        return [y, *gradients(y, gy, [x, norm.gamma, norm.beta])]

    found = run()
    for result, expected in zip(
        found, [y64, *gradients(y64, gy, [x64, double.gamma, double.beta])], strict=True
    ):
        assert relative(result, expected) < TOLERANCE[dtype]
    assert all(map(torch.equal, found, run()))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy about infinity
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu_over_its_whole_range(form: str) -> None:
    x = torch.linspace(-120, 120, 2001)
    x = torch.cat([x, torch.tensor([float("inf"), float("nan")])]).view(1, -1, 1)
    y = gelu_grn.gelu_scale(x, torch.ones(1, 1), torch.zeros(1), form == "tanh").flatten()
    exact = F.gelu(x.double(), approximate=form).flatten()
    assert (y.double() - exact)[:-2].abs().max() < 4e-6
    assert y[-2] == float("inf") and y[-1].isnan()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "c"), [((1, 1, 1), 5), ((2, 9, 13), 20), ((3,), 3000)])
def test_layer_norm(dtype: torch.dtype, shape: tuple[int, ...], c: int) -> None:
    torch.manual_seed(0)
    x = (surrounded(*shape, c, dtype=dtype).mul_(2).add_(3)).requires_grad_()
    gy = torch.randn(*shape, c).to(dtype)
    weight, bias = (torch.randn(c, requires_grad=True) for _ in range(2))
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    y64 = F.layer_norm(exact[0], (c,), *exact[1:], eps=1e-6)

    def run() -> list[Tensor]:
        y = functional.layer_norm(x, weight, bias, 1e-6)
        assert y.dtype == dtype
        return [y, *gradients(y, gy, [x, weight, bias])]

    found = run()
    for result, expected in zip(found, [y64, *gradients(y64, gy, exact)], strict=True):
        assert relative(result, expected) < TOLERANCE[dtype]
    assert all(map(torch.equal, found, run()))


def test_nothing_is_computed_of_nothing() -> None:
    ops, none = torch.ops.convnextv2, torch.zeros(0, 4, 4, 8)
    shape = [0, 4, 4, 4, 4, 8]
    assert ops.depthwise(none, torch.ones(49, 8), None, None, None, shape).shape == none.shape
    assert not ops.depthwise_weight(none, none, None, None, shape).any()
    assert ops.gelu_squares(none, 0, False).shape == (0, 8)
    assert ops.gelu_products(none, none, 1, False).shape == (1, 2, 8)
    assert ops.gelu_backward(none, none, torch.ones(0, 8), torch.ones(0, 8), True).numel() == 0
    y, *moments = ops.layer_norm(none, torch.ones(8), torch.ones(8), 1e-6)
    assert y.shape == none.shape
    assert not ops.layer_norm_backward(none, none, torch.ones(8), *moments)[1].any()


def test_sizes_that_do_not_fit_are_an_error() -> None:
    x = torch.randn(1, 4, 3, 8)
    with pytest.raises(ValueError, match="do not fit on canvases of 4 x 4"):
        torch.ops.convnextv2.depthwise(x, torch.ones(49, 8), None, None, None, [1, 4, 3, 4, 4, 8])


def test_places_and_runs_may_be_views(one_program: None) -> None:
    torch.manual_seed(0)
    x, taps, shape = torch.randn(1, 4, 2, 8), torch.randn(49, 8), [1, 4, 2, 4, 4, 8]
    places = torch.tensor([0, 2, 3, 5])
    runs = run_table(places, 1, (4, 4), 2)
    expected = depthwise.depthwise(x, taps, None, places, runs, shape)
    views = [torch.stack([each, each + 1], 1)[:, 0] for each in (places, runs)]
    assert not any(each.is_contiguous() for each in views)
    assert torch.equal(depthwise.depthwise(x, taps, None, *views, shape), expected)
    both = depthwise.depthwise_weight(x, x, places, runs, shape)
    assert torch.equal(depthwise.depthwise_weight(x, x, *views, shape), both)


def test_operations_say_what_they_return() -> None:
    x, ops = torch.randn(2, 3, 3, 8), torch.ops.convnextv2
    moments = torch.randn(18), torch.randn(18)
    for operation, arguments in (
        (ops.layer_norm, (x, torch.randn(8), torch.randn(8), 1e-6)),
        (ops.layer_norm_backward, (x, x, torch.randn(8), *moments)),
    ):
        torch.library.opcheck(
            operation.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_a_compiled_graph_has_them_inside() -> None:
    x, gy = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 3, 8)
    weight, bias, gamma, beta = (torch.randn(8, requires_grad=True) for _ in range(4))

    def run(x: Tensor) -> Tensor:
        y = functional.layer_norm(x, weight, bias, 1e-6)
        return functional.gelu_grn(y, gamma, beta, images=2, eps=1e-6, tanh=False)

    leaves = [x, weight, bias, gamma, beta]
    expected = gradients(run(x), gy, leaves)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    found = gradients(compiled(x), gy, leaves)
    torch.testing.assert_close(found, expected)


def test_the_comparison_before_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes the kernels as they are, and finds every one that computes something else."""
    monkeypatch.setattr(depthwise, "_POSITIONS", 128)
    only = {torch.float16: GPU[torch.float16]}
    called: list[str] = []

    def run(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
        called.append(name)
        call.call(torch.device("cpu"), name, x, *arguments)
        if name == wrong:
            out = arguments[-1]
            assert isinstance(out, Tensor)
            out.flatten()[-1] += out.float().abs().max()

    wrong = ""
    assert disagreement(run, only, on_gpu=True) == ""
    assert len(set(called)) == 9
    monkeypatch.setattr("convnextv2.kernels.selfcheck._depthwise", lambda dtype: [])
    for wrong in ("layer_norm", "layer_norm_weight", "gelu_squares", "gelu_backward"):
        assert disagreement(run, only, on_gpu=True).startswith(
            f"{wrong} in torch.float16 differs by"
        )
