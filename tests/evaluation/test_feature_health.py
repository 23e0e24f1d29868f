"""Figures of features, against their definitions in NumPy."""

import math

import numpy as np
import pytest
import torch
from model.reference import randomise

from convnextv2.evaluation.feature_health import diversity, effective_rank, examine_layers
from convnextv2.model.convnext import ConvNeXtV2

DEPTHS, DIMS = (1, 2, 1, 1), (4, 8, 12, 16)


def by_definition(maps: np.ndarray) -> float:
    """The mean of (1 - cos) / 2 over all pairs of channels that have a direction, (P, C)."""
    alive = [maps[:, j] for j in range(maps.shape[1]) if np.any(maps[:, j])]
    distances = [(1 - a @ b / np.sqrt((a @ a) * (b @ b))) / 2 for a in alive for b in alive]
    return float(np.mean(distances))


def test_diversity_is_the_mean_distance_over_all_pairs_of_channels() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(0.3, 1, (3, 20, 7))
    maps[1, :, 2] = 0  # a dead channel has no cosine
    found = diversity(torch.from_numpy(maps)).numpy()
    np.testing.assert_allclose(found, [by_definition(each) for each in maps], atol=1e-6)
    assert float(diversity(torch.ones(1, 5, 4))) == pytest.approx(0, abs=1e-6)
    assert float(diversity(torch.eye(4)[None])) == pytest.approx(0.5 * (1 - 1 / 4))
    assert math.isnan(float(diversity(torch.zeros(1, 5, 4))))
    tiny = torch.full((1, 5, 4), 1e-30)
    assert float(diversity(tiny)) == pytest.approx(0, abs=1e-6)


def test_effective_rank_is_the_entropy_of_the_singular_values() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 6)) @ np.diag([5.0, 3, 1, 1, 0.1, 0]) @ rng.normal(size=(6, 6))
    centred = rows - rows.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values[values > 1e-9] / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    covariance = torch.from_numpy(centred.T @ centred / len(rows))
    assert effective_rank(covariance) == pytest.approx(expected, rel=1e-5)
    assert effective_rank(torch.eye(5, dtype=torch.float64)) == pytest.approx(5)
    assert math.isnan(effective_rank(torch.zeros(3, 3, dtype=torch.float64)))
    assert math.isnan(effective_rank(torch.full((3, 3), torch.nan, dtype=torch.float64)))


def captured(encoder: ConvNeXtV2, images: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the output of each block and of its first linear layer, captured by hooks."""
    wide, out = [], []
    handles = []
    for stage in encoder.stages:
        for block in stage:
            handles.append(
                block.pwconv1.register_forward_hook(lambda m, a, y: wide.append(y.numpy()))
            )
            handles.append(block.register_forward_hook(lambda m, a, y: out.append(y.numpy())))
    with torch.inference_mode():
        encoder.encode(images)
    for handle in handles:
        handle.remove()
    return list(zip(wide, out, strict=True))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("block", ["v2", "v2_without_grn", "v1"])
def test_each_layer_is_measured_as_defined(block: str) -> None:
    encoder = randomise(ConvNeXtV2(DEPTHS, DIMS, num_classes=None, block=block).double()).eval()
    with torch.no_grad():
        first = encoder.stages[0][0]
        first.pwconv1.weight[3] = 0  # GELU of the bias alone: saturated
        first.pwconv1.bias[3] = 2
        first.pwconv1.weight[5] = 0  # GELU of a very negative number: dead
        first.pwconv1.bias[5] = -30
    images = torch.randn(
        3, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    layers = examine_layers(encoder, images)
    blocks = [each for stage in encoder.stages for each in stage]
    assert [layer.name for layer in layers] == ["1.1", "2.1", "2.2", "3.1", "4.1"]
    for layer, own, (wide, out) in zip(layers, blocks, captured(encoder, images), strict=True):
        before = gelu(wide)
        after = before
        if block == "v2":
            norm = np.sqrt((before**2).sum((1, 2), keepdims=True))
            ratio = norm / (norm.mean(-1, keepdims=True) + 1e-6)
            gamma, beta = (p.detach().numpy() for p in (own.grn.gamma, own.grn.beta))
            after = gamma * before * ratio + beta + before
            assert layer.grn_gamma == pytest.approx(np.abs(gamma).mean())
            assert layer.grn_beta == pytest.approx(np.abs(beta).mean())
        else:
            assert layer.grn_gamma is layer.grn_beta is None
        each = [by_definition(image.reshape(-1, image.shape[-1])) for image in after]
        assert layer.diversity == pytest.approx(np.mean(each), abs=1e-5)
        rows = before.reshape(-1, before.shape[-1])
        rms = np.sqrt((rows**2).mean(0))
        dead = rms < 0.01 * np.sqrt((rows**2).mean())
        assert layer.dead == pytest.approx(dead.mean())
        saturated = ~dead & (rows.std(0) < 0.05 * rms)
        assert layer.saturated == pytest.approx(saturated.mean())
        flat = out.reshape(-1, out.shape[-1])
        values = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
        shares = values / values.sum()
        rank = np.exp(-(shares * np.log(shares)).sum())
        assert layer.effective_rank == pytest.approx(rank / out.shape[-1], rel=1e-4)
    assert layers[0].dead >= 1 / 16 and layers[0].saturated >= 1 / 16


def test_batches_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = randomise(ConvNeXtV2(DEPTHS, DIMS, num_classes=None).double()).eval()
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)
    whole = examine_layers(encoder, images)
    monkeypatch.setattr("convnextv2.evaluation.feature_health._BATCH", 2)
    for a, b in zip(whole, examine_layers(encoder, images), strict=True):
        assert a.diversity == pytest.approx(b.diversity)
        assert a.effective_rank == pytest.approx(b.effective_rank, rel=1e-6)
