from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model.reference import randomise

from convnextv2.errors import DataError
from convnextv2.inference import pixel_classifier as module
from convnextv2.inference.pixel_classifier import (
    LogitMap,
    PixelClassifier,
    Windows,
    build_pixel_classifier,
    classes_of,
    shares_of,
    window_corners,
)
from convnextv2.kernels.choice import choose
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import Preprocessing

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c", "d")
PLAIN = Preprocessing((64, 64), interpolation="bilinear")


def network() -> Segmentor:
    torch.manual_seed(0)
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)
    return randomise(Segmentor(encoder, len(CLASSES), channels=16)).eval()


def of(model: Segmentor, windows: Windows | None = None) -> PixelClassifier:
    return build_pixel_classifier(
        model, PLAIN, class_names=CLASSES, device=CPU, dtype=torch.float32, windows=windows
    )


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(PLAIN.mean), torch.tensor(PLAIN.std)
    return ((pixels / 255 - mean[:, None, None]) / std[:, None, None])[None]


def agree(found: torch.Tensor, expected: torch.Tensor, share: float = 0.999) -> bool:
    """Equal, except where two classes are as good as equal."""
    return found.shape == expected.shape and bool((found == expected).float().mean() >= share)


def test_a_whole_image_is_one_pass_and_a_bilinear_enlargement() -> None:
    model, pixels = network(), noise(64, 96)
    with torch.no_grad():
        logits = F.interpolate(model(normalised(pixels)), (64, 96), mode="bilinear")
    assert agree(of(model)(pixels), logits[0].argmax(0).to(torch.int16))


def test_logits_are_enlarged_to_the_image_itself() -> None:
    """If the network sees another size, logits are enlarged in one bilinear step from its own."""
    model, pixels = network(), noise(128, 192)
    pixel_classifier = of(model)
    prepared = pixel_classifier.prepare(pixels)
    assert prepared.shape == (3, 64, 96)
    with torch.no_grad():
        logits = model(normalised(prepared))
        expected = F.interpolate(logits, (128, 192), mode="bilinear")[0].argmax(0)
    found = pixel_classifier(pixels)
    assert found.dtype == torch.int16 and agree(found, expected.to(torch.int16))
    assert torch.equal(pixel_classifier.classify_prepared(prepared, (128, 192)), found)


def test_sides_that_are_no_multiples_of_the_stride_are_padded_and_stay_aligned() -> None:
    """A network that passes its input on shows where every pixel comes from."""

    def passed_on(images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] % 32 == images.shape[3] % 32 == 0
        return F.avg_pool2d(images[:, :1], 4).repeat(1, 2, 1, 1) * torch.tensor([1.0, -1]).view(
            1, 2, 1, 1
        )

    pixels = torch.zeros(3, 70, 100, dtype=torch.uint8)
    pixels[:, 40:, 56:] = 255
    pixel_classifier = PixelClassifier(
        passed_on, Preprocessing((70, 70)), stride=32, class_names=("white", "black"), device=CPU
    )
    found = pixel_classifier(pixels)
    assert (found[44:, 60:] == 0).all() and (found[:36] == 1).all() and (found[:, :52] == 1).all()


def test_windows_move_by_two_thirds_and_the_last_is_moved_back() -> None:
    starts = [left for top, left in window_corners((512, 1200), (512, 512))]
    assert starts == [0, 341, 682, 688]
    assert list(window_corners((640, 640), (640, 640))) == [(0, 0)]
    assert list(window_corners((300, 500), (512, 512))) == [(0, 0)]
    covered = torch.zeros(700, 900)
    for top, left in window_corners((700, 900), (512, 512)):
        assert top + 512 <= 700 and left + 512 <= 900
        covered[top : top + 512, left : left + 512] += 1
    assert (covered >= 1).all()


def test_sliding_averages_the_logits_of_windows() -> None:
    model, pixels = network(), noise(64, 150)
    with torch.no_grad():
        total, count = torch.zeros(len(CLASSES), 64, 150), torch.zeros(150)
        for left in (0, 42, 84, 86):
            window = normalised(pixels[:, :, left : left + 64])
            logits = F.interpolate(model(window), (64, 64), mode="bilinear")[0]
            total[:, :, left : left + 64] += logits
            count[left : left + 64] += 1
        expected = (total / count).argmax(0).to(torch.int16)
    assert agree(of(model, Windows(slide=True))(pixels), expected)


def test_several_scales_and_mirrors_average_probabilities() -> None:
    model, pixels = network(), noise(64, 96)
    windows = Windows(scales=(1.0, 2.0), flip=True)
    total = torch.zeros(len(CLASSES), 64, 96)
    pixel_classifier = of(model, windows)
    with torch.no_grad():
        for factor in (1.0, 2.0):
            prepared = normalised(pixel_classifier.prepare(pixels, factor))
            for flip in (False, True):
                logits = model(prepared.flip(-1) if flip else prepared)
                logits = logits.flip(-1) if flip else logits
                total += F.interpolate(logits, (64, 96), mode="bilinear")[0].softmax(0)
    assert agree(pixel_classifier(pixels), total.argmax(0).to(torch.int16), 0.995)


def test_a_mirrored_image_gives_a_mirrored_answer() -> None:
    pixel_classifier, pixels = of(network(), Windows(flip=True)), noise(70, 91)
    assert agree(pixel_classifier(pixels.flip(-1)).flip(-1), pixel_classifier(pixels), 0.97)


@pytest.fixture
def plain() -> Iterator[None]:
    """PyTorch's operations, with which large images are enlarged in strips."""
    choose("plain")
    yield
    choose("auto")


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.usefixtures("plain")
def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    found = LogitMap(torch.randn(5, 16, 24), (15.3, 23.0))
    whole = classes_of([found], (61, 77))
    monkeypatch.setattr(module, "STRIP_VALUES", rows * 5 * 77)
    assert torch.equal(classes_of([found], (61, 77)), whole)


def test_images_smaller_than_the_stride_and_very_long_ones_are_segmented() -> None:
    pixel_classifier = of(network())
    for size in ((1, 1), (5, 3), (2, 2000)):
        assert pixel_classifier(noise(*size)).shape == size


@pytest.mark.usefixtures("plain")
def test_many_classes_and_a_large_image_stay_in_bounded_memory() -> None:
    """150 classes on 1.8 megapixels would be 1.1 GB at once, and three of that in the making."""
    import resource

    logits = torch.randn(150, 128, 192)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert classes_of([LogitMap(logits, (128.0, 192.0))], (1200, 1500)).shape == (1200, 1500)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.2e6  # kB


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (noise(40, 50).permute(1, 2, 0), r"Tensor of uint8 \(40, 50, 3\)"),
        (noise(40, 50) / 255, r"Tensor of float32 \(3, 40, 50\)"),
        (noise(40, 50)[None], r"Tensor of uint8 \(1, 3, 40, 50\)"),
        (noise(40, 50)[:, :0], r"Tensor of uint8 \(3, 0, 50\)"),
        (noise(40, 50).numpy(), r"ndarray of uint8 \(3, 40, 50\)"),
        ("photo.jpg", "str"),
    ],
)
def test_what_are_no_pixels_is_said(bad: Any, what: str) -> None:
    with pytest.raises(
        DataError, match=rf"pixels: {what}\. Expected a tensor of uint8 \(3, H, W\)"
    ):
        of(network())(bad)


def test_shares_begin_with_the_largest_and_leave_out_what_does_not_occur() -> None:
    classes = torch.tensor([[3, 0, 3], [1, 3, 1]], dtype=torch.int16)
    assert shares_of(classes, 5) == [(3, 3 / 6), (1, 2 / 6), (0, 1 / 6)]
    assert shares_of(classes[:1, :2], 5) == [(0, 0.5), (3, 0.5)]  # equal ones by number
