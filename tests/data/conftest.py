import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def picture():
    """uint8 (3, 150, 200) with what resampling and enhancing get wrong.

    It has slopes, a fine pattern, edges, a dark corner and noise.
    """
    y, x = np.mgrid[0:150, 0:200]
    levels = np.stack([x * 1.2, y * 1.6, 128 + 60 * np.sin(x * 0.9) * np.sin(y * 0.7)]).clip(0, 255)
    levels[:, 20:60, 30:90] = np.array([220, 40, 90])[:, None, None]
    levels[:, 100:, :50] *= 0.2
    levels[:, 80:130, 120:180] = np.random.default_rng(0).integers(0, 256, (3, 50, 60))
    return torch.from_numpy(levels.astype(np.uint8))
