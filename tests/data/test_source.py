from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.source import Source


@pytest.mark.parametrize(("bands", "expected"), [(3, 3), (1, 3), (5, 5)])
def test_usual_channels_are_those_of_the_first_readable_image(
    bands: int, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    pixels = np.zeros((8, 8, bands), np.uint8)
    np.save(tmp_path / "1.npy", pixels)
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    paths = [str(tmp_path / name) for name in ("0.png", "1.npy", "2.png")]
    assert Source(paths).usual_channels() == expected


def test_images_that_cannot_be_read_are_taken_for_rgb(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    assert Source([str(tmp_path / "0.png")]).usual_channels() == 3
