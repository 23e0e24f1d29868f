from pathlib import Path

import numpy as np
import pytest
import torch
from shop import draw_grey


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


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten hats and five shoes, one of them in a folder below; a hidden file and a text file."""
    for i in range(10):
        draw_grey(tmp_path / "hat" / f"{i}.png", i)
    for i in range(4):
        draw_grey(tmp_path / "shoe" / f"{i}.jpg", 100 + i)
    draw_grey(tmp_path / "shoe" / "left" / "4.PNG", 104)
    draw_grey(tmp_path / "shoe" / ".hidden.png")
    (tmp_path / "shoe" / "notes.txt").write_text("no image")
    return tmp_path
