import pytest
import torch

from convnextv2.model.layers import DropPath, GlobalResponseNorm, LayerNorm


def grn_by_definition(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for n in range(x.shape[0]):
        norms = [x[n, :, :, j].square().sum().sqrt() for j in range(x.shape[3])]
        mean = sum(norms) / len(norms)
        for j, norm in enumerate(norms):
            out[n, :, :, j] = (
                gamma[j] * x[n, :, :, j] * norm / (mean + 1e-6) + beta[j] + x[n, :, :, j]
            )
    return out


def random_grn(scope: str = "image") -> GlobalResponseNorm:
    layer = GlobalResponseNorm(6, scope).double()
    torch.nn.init.normal_(layer.gamma)
    torch.nn.init.normal_(layer.beta)
    return layer


def test_grn_is_algorithm_1_of_the_paper() -> None:
    layer, x = random_grn(), torch.randn(3, 4, 5, 6, dtype=torch.float64)
    assert torch.allclose(
        layer(x), grn_by_definition(x, layer.gamma, layer.beta), rtol=1e-12, atol=1e-12
    )


def test_grn_of_an_image_does_not_depend_on_its_neighbours_unless_asked() -> None:
    x = torch.randn(2, 4, 4, 6, dtype=torch.float64)
    changed = torch.cat([x[:1], 7 * x[1:]])
    layer = random_grn()
    assert torch.equal(layer(x)[0], layer(changed)[0])
    layer = random_grn("batch")
    assert not torch.allclose(layer(x)[0], layer(changed)[0])
    as_one_image = grn_by_definition(x.reshape(1, 8, 4, 6), layer.gamma, layer.beta).view_as(x)
    assert torch.allclose(layer(x), as_one_image, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_hold_in_half_precision(dtype: torch.dtype) -> None:
    """At a channel RMS of 20 over 56 x 56 positions a float16 sum of squares is infinite."""
    grn, norm = GlobalResponseNorm(16), LayerNorm(16)
    torch.nn.init.normal_(grn.gamma)
    x = torch.randn(2, 56, 56, 16) * 20
    assert not torch.isfinite(
        x.half().square().sum((1, 2), dtype=torch.float16)
    ).all()  # the naive way does overflow
    for layer in (grn, norm):
        expected = layer(x)
        for converted in (layer, layer.to(dtype)):
            actual = converted(x.to(dtype))
            assert actual.dtype == dtype
            assert (actual.float() - expected).abs().max() / expected.abs().max() < 2e-2
        layer.float()


def test_layer_norm_keeps_float32_statistics_far_from_zero() -> None:
    """Mean 300, deviation 1: with statistics in bfloat16 (8 bits) the deviation would be lost."""
    x = (300 + torch.randn(8, 64)).to(torch.bfloat16)
    expected = torch.nn.functional.layer_norm(x.double(), (64,), eps=1e-6)
    assert (LayerNorm(64)(x).double() - expected).abs().max() < 0.05


def test_dead_channel_has_a_finite_gradient() -> None:
    layer = random_grn()
    x = torch.randn(1, 3, 3, 6, dtype=torch.float64)
    x[..., 2] = 0
    x.requires_grad_()
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    black = torch.zeros(1, 3, 3, 6, dtype=torch.float64, requires_grad=True)
    layer(black).sum().backward()
    assert torch.isfinite(black.grad).all()


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    layer = DropPath(0.25).train()
    y = layer(torch.ones(4000, 2, 2, 3))
    per_image = y.flatten(1)
    assert per_image.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (per_image == per_image[:, :1]).all()
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(y), y)
