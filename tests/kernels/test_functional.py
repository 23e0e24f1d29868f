"""The native layers against PyTorch's own operations in float64."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from kernels.reference import TOLERANCE, both_kernels, gradients, relative
from processes import run_program
from torch import Tensor

from convnextv2.data.transforms import BatchTransform
from convnextv2.kernels import choice, functional, library
from convnextv2.kernels import pixels as native
from convnextv2.kernels.selfcheck import disagreement
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.layers import Block, DepthwiseConv, GlobalResponseNorm, init_weights
from convnextv2.model.tiles import Tiles

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(40, 14, 14), (5, 3, 19), (24, 1, 1), (16, 8, 23)]
)
def test_depthwise_convolution_of_dense_images(
    dtype: torch.dtype, channels: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    x, gy = (torch.randn(3, height, width, channels).to(dtype) for _ in range(2))
    conv = DepthwiseConv(channels)
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, conv.weight, conv.bias)]
    y64 = F.conv2d(
        exact[0].permute(0, 3, 1, 2), exact[1], exact[2], padding=3, groups=channels
    ).permute(0, 2, 3, 1)
    x.requires_grad_()
    assert choice.are_used_for(x)
    y = conv(x)
    assert y.dtype == dtype
    found = [y, *gradients(y, gy, [x, conv.weight, conv.bias])]
    for result, expected in zip(found, [y64, *gradients(y64, gy, exact)], strict=True):
        assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("side", [8, 4, 2, 1])
def test_depthwise_convolution_of_visible_tiles(dtype: torch.dtype, side: int) -> None:
    torch.manual_seed(0)
    grid, channels = (3, 4), 12
    visible, _ = draw_masks(2, grid, 0.6, torch.Generator().manual_seed(1))
    canvas = Tiles(visible, grid).canvas(side)
    conv = DepthwiseConv(channels)
    torch.nn.init.normal_(conv.weight)
    x = torch.randn(2, visible.shape[1], side, side, channels).to(dtype).requires_grad_()
    gy = torch.randn(x.shape)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, conv.weight)]
    dense = canvas.paint(exact[0]).permute(0, 3, 1, 2)
    y64 = canvas.pick(
        F.conv2d(dense, exact[1], conv.bias.double(), padding=3, groups=channels).permute(
            0, 2, 3, 1
        )
    )
    y = conv(x, canvas)
    found = [y, *gradients(y, gy, [x, conv.weight])]
    for result, expected in zip(found, [y64, *gradients(y64, gy, exact)], strict=True):
        assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", ["none", "tanh"])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_gelu_and_grn(dtype: torch.dtype, form: str, scope: str) -> None:
    torch.manual_seed(0)
    # 100 positions are more than one chunk, values reach both tails of GELU, and one channel is 0
    # everywhere.
    x = (3 * torch.randn(2, 10, 10, 36)).to(dtype)
    x[..., 5] = 0
    gy = torch.randn(x.shape)
    norm = GlobalResponseNorm(36, scope)
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    double = GlobalResponseNorm(36, scope).double()
    double.load_state_dict(norm.state_dict())
    x64 = x.double().requires_grad_()
    y64 = double(F.gelu(x64, approximate=form))
    x.requires_grad_()
    images = 2 if scope == "image" else 1
    y = functional.gelu_grn(
        x, norm.gamma, norm.beta, images=images, eps=norm.eps, tanh=form == "tanh"
    )
    found = [y, *gradients(y, gy, [x, norm.gamma, norm.beta])]
    for result, expected in zip(
        found, [y64, *gradients(y64, gy, [x64, double.gamma, double.beta])], strict=True
    ):
        assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", ["none", "tanh"])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("outputs", [12, 300], ids=["scaled weights", "scaled activations"])
@pytest.mark.parametrize("fused", [True, False], ids=["GELU in the layer", "GELU after it"])
def test_mlp_without_gradients(
    dtype: torch.dtype,
    form: str,
    scope: str,
    outputs: int,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not fused:
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 10, 10, 9)).to(dtype)
    before = x.clone()
    first, norm, second = (
        torch.nn.Linear(9, 36),
        GlobalResponseNorm(36, scope),
        torch.nn.Linear(36, outputs),
    )
    torch.nn.init.normal_(norm.gamma)
    torch.nn.init.normal_(norm.beta)
    with torch.no_grad():
        first.weight[5] = first.bias[5] = 0
    doubles = [copy.deepcopy(module).double() for module in (first, norm, second)]
    parameters = *first.parameters(), *norm.parameters(), *second.parameters()
    with torch.no_grad():
        expected = doubles[2](doubles[1](F.gelu(doubles[0](x.double()), approximate=form)))
        y = functional.mlp_without_gradients(
            x, *parameters, images=2 if scope == "image" else 1, eps=norm.eps, tanh=form == "tanh"
        )
    assert y.dtype == dtype and torch.equal(x, before)
    assert relative(y, expected) < TOLERANCE[dtype]


def test_without_gradients_a_block_sees_what_hangs_on_its_layers() -> None:
    """Without gradients, a block computes its linear layers as part of one function.

    It calls the layers themselves if they have hooks or were replaced.
    """
    torch.manual_seed(0)
    block, x = Block(8).apply(init_weights), torch.randn(2, 7, 7, 8)
    torch.nn.init.normal_(block.grn.gamma)
    seen: list[torch.Tensor] = []
    expected = block(x)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)
        for layer in (block.pwconv1, block.pwconv2):
            with layer.register_forward_hook(lambda module, inputs, output: seen.append(output)):
                torch.testing.assert_close(block(x), expected)
        torch.testing.assert_close(x + seen[1], expected)
        block.pwconv2 = torch.nn.Sequential(block.pwconv2, torch.nn.Tanh())
        torch.testing.assert_close(block(x), x + (expected - x).tanh())


def test_without_gradients_a_block_computes_what_it_does_with_them_whatever_its_layers_are() -> (
    None
):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 7, 8)
    changed = [Block(8) for _ in range(3)]
    changed[0].pwconv1 = torch.nn.Linear(8, 32, bias=False)
    changed[1].pwconv2 = torch.nn.Linear(32, 8, bias=False)
    original = changed[2].pwconv1.forward
    changed[2].pwconv1.forward = lambda y: 2 * original(y)  # type: ignore[method-assign]
    for block in changed:
        torch.nn.init.normal_(block.dwconv.weight)
        torch.nn.init.normal_(block.grn.gamma)
        expected = block(x)
        with torch.no_grad():
            torch.testing.assert_close(block(x), expected)


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.full((1, 4, 4, 8), float("nan"))
    for dtype in TOLERANCE:
        assert (
            functional.depthwise(x.to(dtype), torch.ones(8, 1, 7, 7), torch.zeros(8), None, (4, 4))
            .isnan()
            .all()
        )
        scaled = functional.gelu_grn(
            x.to(dtype), torch.ones(8), torch.zeros(8), images=1, eps=1e-6, tanh=False
        )
        assert scaled.isnan().all()


def test_a_model_in_bfloat16_computes_what_the_plain_one_does() -> None:
    torch.manual_seed(0)
    model = ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 16), num_classes=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model, images = model.bfloat16(), torch.randn(2, 3, 64, 64).bfloat16()
    found, expected = both_kernels(lambda: model(images))
    assert relative(found, expected) < 3e-2
    for parameter in model.parameters():
        parameter.grad = None
    model(images).float().square().sum().backward()
    assert all(
        parameter.grad.dtype == torch.bfloat16 and parameter.grad.isfinite().all()
        for parameter in model.parameters()
    )


def test_no_default_dtype_or_device_changes_results() -> None:
    torch.manual_seed(0)
    conv, x = DepthwiseConv(8), torch.randn(1, 4, 4, 8, requires_grad=True)
    torch.nn.init.normal_(conv.weight)
    gamma, beta = torch.randn(8), torch.randn(8)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    image, shift = pixels[0].permute(1, 2, 0), (1.0, 0.5, 0.0, 0.0, 1.0, 0.0)

    def results() -> list[Tensor]:
        y = functional.gelu_grn(conv(x), gamma, beta, images=1, eps=1e-6, tanh=False)
        normalised = BatchTransform((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).normalise(pixels)
        warped = native.warp(image, shift, bicubic=True, fill=(1, 2, 3))
        return [
            y,
            *gradients(y, torch.ones_like(y), [x, conv.weight, conv.bias]),
            normalised,
            warped,
        ]

    expected = results()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            found = results()
            assert disagreement(library.call) == ""
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("place", [-1, 3 * 4 * 2, 10**9])
def test_a_place_outside_its_image_is_an_error(place: int) -> None:
    x, places = torch.randn(2, 2, 2, 8, requires_grad=True), torch.tensor([0, 1, 24, 25])
    conv = DepthwiseConv(8)
    torch.nn.init.normal_(conv.weight)
    y = functional.depthwise(x, conv.weight, conv.bias, places, (3 * 2, 4 * 2))
    with pytest.raises(IndexError, match="outside their image's canvas of 6 x 8"):
        torch.ops.convnextv2.depthwise_weight(
            x, y, torch.tensor([place, 1, 24, 25]), None, [2, 2, 2, 6, 8, 8]
        )
    places[0] = place
    with pytest.raises(IndexError, match="outside their image's canvas of 6 x 8"):
        functional.depthwise(x, conv.weight, conv.bias, places, (3 * 2, 4 * 2))


def test_a_visible_tile_outside_the_grid_is_an_error() -> None:
    model = FCMAE(ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=None), decoder_dim=8)
    visible, masked = draw_masks(2, (2, 2), 0.5, torch.Generator())
    visible[0, 0] = 7
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        model(torch.randn(2, 3, 64, 64), visible, masked)


def test_sizes_that_do_not_fit_are_errors() -> None:
    x, weight, bias = torch.randn(1, 4, 3, 8), torch.randn(8, 1, 7, 7), torch.zeros(8)
    for places, size in (
        (None, (4, 4)),
        (torch.arange(4), (4, 4)),
        (torch.arange(3), (4, 3)),
        (torch.zeros(4), (4, 3)),
    ):
        with pytest.raises(ValueError, match="do not fit on canvases"):
            functional.depthwise(x, weight, bias, places, size)
    for shape in ((4, 4, 2), (4, 4), (0, 4, 3)):
        with pytest.raises(AssertionError):
            native.warp(
                torch.zeros(shape, dtype=torch.uint8),
                (1, 0, 0, 0, 1, 0),
                bicubic=False,
                fill=(0,) * shape[-1],
            )


def test_batches_and_images_of_nothing() -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=3)
    logits = model(torch.randn(0, 3, 64, 64))
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert DepthwiseConv(8)(torch.randn(1, 4, 0, 8)).shape == (1, 4, 0, 8)
    with torch.no_grad():
        assert model(torch.randn(0, 3, 64, 64)).shape == (0, 3)
        for scope in ("image", "batch"):
            assert Block(8, grn_scope=scope)(torch.randn(0, 4, 4, 8)).shape == (0, 4, 4, 8)
            assert Block(8, grn_scope=scope)(torch.randn(2, 0, 4, 8)).shape == (2, 0, 4, 8)


@pytest.mark.parametrize("reduce", [torch.sum, lambda y: y.square().sum()])
def test_second_derivatives_are_an_error(reduce: Callable[[Tensor], Tensor]) -> None:
    """Also behind a sum, where PyTorch's own check would let them pass as zeros."""
    block = Block(8)
    x = torch.randn(1, 4, 4, 8, requires_grad=True)
    for y in (
        block.dwconv(x),
        functional.gelu_grn(x, torch.ones(8), torch.ones(8), images=1, eps=1e-6, tanh=False),
    ):
        with pytest.raises(RuntimeError, match="the kernels have no second derivatives"):
            torch.autograd.grad(reduce(y), x, create_graph=True)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(5, 9, 9, 20, requires_grad=True), DepthwiseConv(20)
    torch.nn.init.normal_(conv.weight)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y = functional.gelu_grn(
                conv(x), torch.ones(20), torch.zeros(20), images=5, eps=1e-6, tanh=False
            )
            squares = torch.ops.convnextv2.squares(y.detach(), 5)
            results.append([y, squares, *gradients(y, y.detach(), [x, conv.weight, conv.bias])])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_too_little_memory_is_an_error_and_not_the_end_of_the_process() -> None:
    """A canvas takes 16 to 64 times as much as its image of one channel."""
    code = """
import resource, torch
from convnextv2.kernels import functional, pixels
def convolve(side):
    x, weight = torch.zeros(1, side, side, 1, requires_grad=True), torch.zeros(1, 1, 7, 7)
    return functional.depthwise(x, weight, torch.zeros(1), None, (side, side))
def warp(side):
    image = torch.zeros(side, side, 1, dtype=torch.uint8)
    return pixels.warp(image, (0, 1, 0, 1, 0, 0), bicubic=True, fill=[0])
y = convolve(2000)
for run in (convolve, warp):
    run(8)  # threads and the library are there from now on
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (48 << 20), size + (48 << 20)))
for work in (lambda: convolve(2000), lambda: warp(2500), lambda: y.backward(y.detach())):
    try:
        work()
    except MemoryError as error:
        print(error)
"""
    status, out, errors = run_program("-c", code)
    assert status == 0, errors
    kernels = ("depthwise", "warp", "depthwise")
    assert out.splitlines() == [f"not enough memory for the kernel {name}" for name in kernels]
