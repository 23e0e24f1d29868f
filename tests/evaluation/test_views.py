"""Views at test time: which there are, and the mean of their probabilities."""

import numpy as np
import torch
from scipy.special import softmax

from convnextv2.evaluation.views import averaged, views


def test_the_views_are_the_scales_and_their_mirror_images() -> None:
    images = torch.rand(2, 3, 64, 96)
    found = list(views(images, (1, 1.25, 0.1), 32))
    assert [tuple(view.shape[2:]) for view in found[::2]] == [(64, 96), (64, 128), (32, 32)]
    assert torch.equal(found[0], images)
    for view, mirrored in zip(found[::2], found[1::2], strict=True):
        assert np.array_equal(mirrored.numpy(), view.numpy()[..., ::-1])
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    assert [view.dtype for view in views(pixels, (1,), 32)] == [torch.uint8] * 2


def test_the_probabilities_are_averaged() -> None:
    weight = torch.randn(3 * 16 * 16, 5, dtype=torch.float64)

    def logits_fn(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 16).flatten(1) @ weight

    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    found = averaged(logits_fn, (1, 2), 32)(images)
    probs = [softmax(logits_fn(view).numpy(), 1) for view in views(images, (1, 2), 32)]
    assert len(probs) == 4
    np.testing.assert_allclose(softmax(found.numpy(), 1), np.mean(probs, 0), atol=1e-12)
