"""The foreignness of images, compared with NumPy, SciPy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from convnextv2.evaluation.foreign import (
    appearance,
    enlarged_parts,
    fit_foreign,
    precision,
    shrunk_covariance,
)


def rows(count: int, size: int, seed: int = 0, centre: float = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(size, size))
    return (centre + draw.normal(size=(count, size)) @ mix).astype(np.float32)


@pytest.mark.parametrize(("count", "size"), [(200, 5), (40, 12), (8, 30)])
def test_the_covariance_is_that_of_ledoit_and_wolf(count: int, size: int) -> None:
    centred = rows(count, size).astype(np.float64)
    centred -= centred.mean(0)
    expected, _ = ledoit_wolf(centred, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(centred), expected, rtol=1e-10, atol=1e-12)
    if count > size:
        np.testing.assert_allclose(precision(centred), np.linalg.inv(expected), rtol=1e-6)


def test_the_answers_are_those_of_two_normal_densities() -> None:
    known, parts = rows(300, 6), rows(300, 6, 1, centre=2)
    foreign, _ = fit_foreign(known, parts)
    new = 3 * rows(20, 6, 5)
    scaled = [(each - known.mean(0)) / known.std(0) for each in (known, parts, new)]
    known_shape, _ = ledoit_wolf(scaled[0], assume_centered=True)
    part_mean = scaled[1].mean(0)
    part_shape, _ = ledoit_wolf(scaled[1] - part_mean, assume_centered=True)
    first = multivariate_normal(np.zeros(6), known_shape)
    second = multivariate_normal(part_mean, part_shape)
    at_mean = [first.logpdf(np.zeros(6)), second.logpdf(part_mean)]
    distance = 2 * (at_mean[0] - first.logpdf(scaled[2]))
    ratio = distance - 2 * (at_mean[1] - second.logpdf(scaled[2]))
    np.testing.assert_allclose(foreign.scores(new), np.stack([distance, ratio], 1), rtol=1e-3)
    both = (foreign.scores(new) - foreign.usual) / foreign.spread
    np.testing.assert_array_equal(foreign(new), both.max(1))


def test_a_fit_never_judges_an_image_that_it_knows() -> None:
    """In as many dimensions as images, a fit is far nearer to its own images than to others."""
    known, parts = rows(60, 40), rows(60, 40, 1)
    foreign, apart = fit_foreign(known, parts)
    assert np.median(apart) > np.median(foreign(known)) + 0.5
    others = np.arange(60) % 5 != 2
    alone, _ = fit_foreign(known[others], parts[others])
    expected = (alone.scores(known[~others]) - foreign.usual) / foreign.spread
    np.testing.assert_allclose(apart[~others], expected.max(1), rtol=1e-4)


@pytest.mark.parametrize("known", [np.zeros((9, 4)), np.ones((2, 4)), np.eye(4)[:3]])
def test_features_that_do_not_vary_give_finite_answers(known: np.ndarray) -> None:
    known = known.astype(np.float32)
    foreign, apart = fit_foreign(known, known + 1)
    assert np.isfinite(foreign(np.full((1, 4), 7, np.float32))).all() and np.isfinite(apart).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_the_appearance_by_its_definition(channels: int) -> None:
    pixels = torch.randint(0, 256, (3, channels, 16, 24), dtype=torch.uint8)
    found = appearance(pixels)
    images = pixels.numpy() / 255
    pairs = min(6, channels * (channels - 1) // 2)
    assert found.shape == (3, channels * (2 + 16 + 6) + pairs)
    np.testing.assert_allclose(found[:, :channels], images.mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found[:, channels : 2 * channels], images.std((2, 3)), rtol=1e-5)
    grid = images.reshape(3, channels, 4, 4, 4, 6).mean((3, 5)).reshape(3, -1)
    np.testing.assert_allclose(found[:, 2 * channels : 18 * channels], grid, rtol=1e-5)
    edges = np.log(np.abs(np.diff(images, axis=2)).mean((2, 3)) + 1e-3)
    np.testing.assert_allclose(found[:, 18 * channels : 19 * channels], edges, rtol=1e-4)
    if channels > 1:
        both = [np.corrcoef(each[0].ravel(), each[1].ravel())[0, 1] for each in images]
        np.testing.assert_allclose(found[:, 24 * channels], both, atol=0.02)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (64, 64), (200, 130)])
def test_images_of_any_size_have_a_finite_appearance(size: tuple[int, int]) -> None:
    pixels = torch.full((2, 3, *size), 255, dtype=torch.uint8)
    found = appearance(pixels)
    assert found.shape == (2, 75) and np.isfinite(found).all()
    assert enlarged_parts(pixels, np.array([3, -5])).shape == pixels.shape


def test_a_part_is_an_enlarged_piece_that_depends_on_the_image_alone() -> None:
    ramp = torch.arange(40, dtype=torch.uint8).expand(2, 3, 40, 40) * 6
    both = enlarged_parts(ramp, np.array([7, 8]))
    again = enlarged_parts(ramp[1:], np.array([8]))
    assert torch.equal(both[1:], again)
    span = both[0, 0].float().max() - both[0, 0].float().min()
    assert 0.2 * 234 < span < 0.4 * 234  # three tenths of the ramp over the whole width
