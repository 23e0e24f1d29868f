"""The map of embeddings, against scikit-learn, and its pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from convnextv2.evaluation.drawing import colour_of
from convnextv2.evaluation.embedding_map import (
    HEIGHT,
    THUMB_PX,
    WIDTH,
    draw_map,
    principal_components,
)
from convnextv2.evaluation.heat import AGAINST, FOR, heat_picture


@pytest.mark.parametrize("shape", [(40, 7), (5, 30)])
def test_components_are_those_of_scikit_learn_with_a_fixed_sign(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    found = principal_components(vectors.astype(np.float32))
    theirs = PCA(2).fit(vectors)
    expected = theirs.transform(vectors)
    expected *= np.sign(expected[np.abs(expected).argmax(0), [0, 1]])
    np.testing.assert_allclose(found.points, expected, atol=1e-4)
    np.testing.assert_allclose(found.shares, theirs.explained_variance_ratio_, atol=1e-6)


@pytest.mark.parametrize("vectors", [np.ones((1, 5)), np.ones((4, 5)), np.arange(3.0)[:, None]])
def test_vectors_without_two_directions_have_a_map_too(vectors: np.ndarray) -> None:
    found = principal_components(vectors)
    assert found.points.shape == (len(vectors), 2) and np.isfinite(found.points).all()
    assert found.shares[1] == 0
    thumbnails = [Image.new("RGB", (9, 9), "red")] * len(vectors)
    draw_map(found.points, thumbnails, [-1] * len(vectors), [False] * len(vectors))


def test_thumbnails_lie_where_their_points_are() -> None:
    points = np.array([[0.0, 0.0], [1.0, 2.0]])
    thumbnails = [Image.new("RGB", (20, 20), colour) for colour in ("lime", "blue")]
    picture = draw_map(points, thumbnails, [3, 1], [False, True])
    assert picture.size == (WIDTH, HEIGHT)
    middle = THUMB_PX // 2
    assert picture.getpixel((middle, HEIGHT - middle)) == (0, 255, 0)  # low and left
    assert picture.getpixel((WIDTH - middle, middle)) == (0, 0, 255)
    assert picture.getpixel((1, HEIGHT - 2)) == colour_of(3)
    assert picture.getpixel((WIDTH - 2, 2)) == colour_of(1)
    corner = (WIDTH - THUMB_PX - 8 + 1, 1)
    assert picture.getpixel(corner) == (0, 0, 0)


def test_a_heat_picture_shows_the_sign_and_the_size_of_a_map() -> None:
    pixels = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    pixels[0] = 130  # in colour, of the same mean as the grey 110
    picture = np.asarray(heat_picture(pixels, torch.tensor([[2.0, -2.0], [0.0, float("nan")]])))
    grey = np.full(3, 110)
    assert np.abs(picture[0, 0] - (0.2 * grey + 0.8 * np.array(FOR))).max() <= 0.5
    assert np.abs(picture[0, 1] - (0.2 * grey + 0.8 * np.array(AGAINST))).max() <= 0.5
    assert (picture[1] == 110).all()
    assert (np.asarray(heat_picture(pixels[:1], torch.zeros(2, 2))) == 130).all()
