import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from convnextv2.data.decode import decode


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """Smooth colours with some texture, 61 x 43 px, in which every wrong pixel shows."""
    y, x = np.mgrid[:43, :61]
    noise = np.random.default_rng(0).integers(0, 12, (43, 61))
    levels = np.stack([4 * x, 5 * y, 100 + noise], -1).clip(0, 255)
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """A function that encodes an image with Pillow."""

    def encode(image: Image.Image, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def read() -> Callable[..., np.ndarray]:
    """A function that decodes to (H, W, C)."""

    def pixels(data: bytes, channels: int = 3, **options: object) -> np.ndarray:
        options.setdefault("max_pixels", 10**8)
        found = decode(data, name="x", channels=channels, **options)
        assert found.permute(1, 2, 0).is_contiguous()
        return found.permute(1, 2, 0).numpy()

    return pixels
