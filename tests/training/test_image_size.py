"""The image size that is chosen for a run of a given length."""

import pytest
import torch
from torch import nn

from convnextv2.distributed import Place
from convnextv2.training.image_size import choose_size, measure_pace


@pytest.mark.parametrize(
    ("pixel_epochs", "size"),
    # Epochs that fit times pixels. 20 epochs at 96 px take 20 x 9,216 = 184,320 of them.
    [(184_320, 96), (184_319, 64), (20 * 128**2, 128), (100 * 224**2, 224), (1, 64)],
)
def test_the_largest_size_with_enough_epochs_is_taken(pixel_epochs: int, size: int) -> None:
    assert choose_size(lambda side: pixel_epochs // side**2) == size


def test_the_pace_is_a_line_through_two_measured_sizes() -> None:
    """A clock counts pixels: an image costs 0.5 s and a microsecond for each pixel."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)
            self.drop = nn.Dropout(0.5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal now
            now += len(images) * (0.5 + 1e-6 * images.shape[2] * images.shape[3])
            return self.drop(self.layer(images))

    now = 0.0
    model = Counting()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    pace = measure_pace(model, torch.float32, Place(torch.device("cpu")), clock=lambda: now)
    for size in (64, 96, 128, 224):
        assert pace(size) == pytest.approx(0.5 + 1e-6 * size**2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert model.layer.weight.grad is None
