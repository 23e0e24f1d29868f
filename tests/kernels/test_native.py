"""The native kernels against PyTorch's own operations in float64."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convnextv2.data.transforms import BatchTransform
from convnextv2.kernels import native
from convnextv2.kernels.selfcheck import disagreement
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.layers import Block, DepthwiseConv, GlobalResponseNorm, init_weights
from convnextv2.model.tiles import Tiles

pytestmark = pytest.mark.skipif(native.choose("auto") != "native", reason="no C++ compiler")

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def gradients(y: Tensor, weights: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad((y * weights.to(y.dtype)).sum(), leaves))


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
    assert native.are_used_for(x)
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
    # 100 positions are more than one chunk; values reach both tails of GELU; one channel is 0 everywhere.
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
    y = native.gelu_grn(x, norm.gamma, norm.beta, images=images, eps=norm.eps, tanh=form == "tanh")
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
        y = native.mlp(
            x, *parameters, images=2 if scope == "image" else 1, eps=norm.eps, tanh=form == "tanh"
        )
    assert y.dtype == dtype and torch.equal(x, before)
    assert relative(y, expected) < TOLERANCE[dtype]


def test_without_gradients_a_block_sees_what_hangs_on_its_layers() -> None:
    """Its linear layers are part of one function then, unless somebody listens to them or has put others in their place."""
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


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu_over_its_whole_range(form: str) -> None:
    x = torch.linspace(-40, 40, 100_001).view(1, -1, 1)
    y = torch.ops.convnextv2.gelu_scale(x, torch.ones(1, 1), torch.zeros(1), form == "tanh")
    exact = F.gelu(x.double(), approximate=form)
    assert (y.double() - exact).abs().max() < 4e-6
    assert (y.double() - exact).abs()[x.abs() < 6].max() < 1e-6
    assert bool((y[x < -6].abs() < 1e-8).all()) and torch.equal(y[x > 6], x[x > 6])


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.full((1, 4, 4, 8), float("nan"))
    for dtype in TOLERANCE:
        assert (
            native.depthwise(x.to(dtype), torch.ones(8, 1, 7, 7), torch.zeros(8), None, (4, 4))
            .isnan()
            .all()
        )
        scaled = native.gelu_grn(
            x.to(dtype), torch.ones(8), torch.zeros(8), images=1, eps=1e-6, tanh=False
        )
        assert scaled.isnan().all()


def both_kernels(run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What the native kernels compute, and what PyTorch's operations do."""
    try:
        native.choose("plain")
        expected = run()
    finally:
        native.choose("auto")
    return run(), expected


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
        y = native.gelu_grn(conv(x), gamma, beta, images=1, eps=1e-6, tanh=False)
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
            assert disagreement(native._call) == ""
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("place", [-1, 3 * 4 * 2, 10**9])
def test_a_place_outside_its_image_is_an_error(place: int) -> None:
    x, places = torch.randn(2, 2, 2, 8, requires_grad=True), torch.tensor([0, 1, 24, 25])
    conv = DepthwiseConv(8)
    torch.nn.init.normal_(conv.weight)
    y = native.depthwise(x, conv.weight, conv.bias, places, (3 * 2, 4 * 2))
    with pytest.raises(IndexError, match="outside their image's canvas of 6 x 8"):
        torch.ops.convnextv2.depthwise_weight(
            x, y, torch.tensor([place, 1, 24, 25]), [2, 2, 2, 6, 8, 8]
        )
    places[0] = place
    with pytest.raises(IndexError, match="outside their image's canvas of 6 x 8"):
        native.depthwise(x, conv.weight, conv.bias, places, (3 * 2, 4 * 2))


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
            native.depthwise(x, weight, bias, places, size)
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


def test_second_derivatives_are_an_error() -> None:
    block = Block(8)
    x = torch.randn(1, 4, 4, 8, requires_grad=True)
    for y in (
        block.dwconv(x),
        native.gelu_grn(x, torch.ones(8), torch.ones(8), images=1, eps=1e-6, tanh=False),
    ):
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.square().sum().backward()


def test_in_autocast_to_float16_the_plain_forms_run() -> None:
    conv, x = DepthwiseConv(8), torch.randn(1, 4, 4, 8)
    torch.nn.init.normal_(conv.weight)
    with torch.autocast("cpu", torch.float16):
        found, expected = both_kernels(lambda: conv(x))
    assert found.dtype == expected.dtype == torch.float16
    assert torch.equal(found, expected)


def test_a_choice_holds_in_what_was_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    call = native._call
    monkeypatch.setattr(
        native, "_call", lambda name, *arguments: calls.append(name) or call(name, *arguments)
    )
    conv, x = DepthwiseConv(8), torch.randn(1, 4, 4, 8)
    compiled, another = (
        torch.compile(module, backend="aot_eager") for module in (conv, DepthwiseConv(8))
    )
    try:
        for module in (compiled, another):
            for choice, expected in (("plain", []), ("native", ["depthwise"]), ("plain", [])):
                native.choose(choice)
                calls.clear()
                with torch.no_grad():
                    module(x)
                assert calls == expected
    finally:
        native.choose("auto")


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(5, 9, 9, 20, requires_grad=True), DepthwiseConv(20)
    torch.nn.init.normal_(conv.weight)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y = native.gelu_grn(
                conv(x), torch.ones(20), torch.zeros(20), images=5, eps=1e-6, tanh=False
            )
            squares = torch.ops.convnextv2.squares(y.detach(), 5)
            results.append([y, squares, *gradients(y, y.detach(), [x, conv.weight, conv.bias])])
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_operations_say_what_they_return() -> None:
    """PyTorch's own check of schema, fake shapes and dispatch."""
    x, images = torch.randn(2, 6, 6, 8), 2
    ops, shape = torch.ops.convnextv2, [2, 6, 6, 6, 6, 8]
    moments = (torch.randn(2, 8), torch.randn(2, 8))
    for operation, arguments in (
        (ops.depthwise, (x, torch.randn(49, 8), torch.randn(8), None, shape)),
        (ops.depthwise_weight, (x, x, None, shape)),
        (ops.gelu_squares, (x, images, False)),
        (ops.squares, (x, images)),
        (ops.linear_gelu, (x, torch.randn(5, x.shape[-1]), torch.randn(5), True)),
        (ops.gelu_scale, (x, moments[0], torch.randn(8), True)),
        (ops.gelu_products, (x, x, images, False)),
        (ops.gelu_backward, (x, x, *moments, False)),
    ):
        torch.library.opcheck(
            operation.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_one_compiled_graph_has_them_inside() -> None:
    torch.manual_seed(0)
    model = FCMAE(ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=None), decoder_dim=8)
    images, masks = torch.randn(2, 3, 64, 64), draw_masks(2, (2, 2), 0.5, torch.Generator())
    loss = model(images, *masks)
    loss.backward()
    expected = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    again = compiled(images, *masks)
    again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close([p.grad for p in model.parameters() if p.grad is not None], expected)


def test_an_exported_graph_has_plain_operations() -> None:
    model = ConvNeXtV2((1, 1, 1, 1), (8, 8, 8, 8), num_classes=3).eval()
    graph = torch.export.export(model, (torch.randn(1, 3, 32, 32),)).graph
    assert not [node for node in graph.nodes if "convnextv2" in str(node.target)]


def test_without_a_compiler_the_plain_forms_run(tmp_path: Path) -> None:
    code = "from convnextv2.kernels import native; print(native.choose('auto')); native.choose('native')"
    environment = os.environ | {"CXX": "no-such-compiler", "CONVNEXTV2_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("plain (no-such-compiler did not build them")
    assert (
        "DeviceError: kernels = native: no-such-compiler did not build them" in done.stderr
        and not list(tmp_path.iterdir())
    )


def test_plain_can_be_chosen() -> None:
    try:
        assert native.choose("plain") == "plain" and not native.are_used_for(torch.ones(1))
    finally:
        native.choose("auto")


def test_a_library_that_computes_something_else_is_found_out() -> None:
    def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
        native._call(name, x, *arguments)
        if name == wrong:
            out = arguments[-1]
            assert isinstance(out, Tensor)
            out.flatten()[-1] += out.float().abs().max()

    wrong = ""
    assert disagreement(call) == ""
    for wrong in (
        "depthwise",
        "depthwise_weight",
        "gelu_squares",
        "gelu_scale",
        "gelu_products",
        "gelu_backward",
    ):
        assert disagreement(call).startswith(f"{wrong} in torch.float32 differs by")


def test_the_first_use_may_be_inside_inference_and_autocast(tmp_path: Path) -> None:
    script = """
import torch
from convnextv2.model.convnext import create_model
from convnextv2.kernels import native
model = torch.compile(create_model("convnextv2_atto", num_classes=3).eval(), backend="eager")
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    model(torch.rand(1, 3, 32, 32))
print(native.choose("auto"))
"""
    environment = os.environ | {"CONVNEXTV2_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "native", done.stderr


@pytest.mark.parametrize("shape", [(3, 3, 17, 29), (2, 1, 40, 40), (1, 3, 1, 1)])
def test_pixels_are_normalised_bit_for_bit(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    transform = BatchTransform((0.485, 0.456, 0.406)[: shape[1]], (0.229, 0.224, 0.225)[: shape[1]])
    found = transform.normalise(pixels)
    monkeypatch.setattr(native, "can_take_pixels", lambda: False)
    assert torch.equal(found, transform.normalise(pixels))
    assert found.is_contiguous(memory_format=torch.channels_last)
