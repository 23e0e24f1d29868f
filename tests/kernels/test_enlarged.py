"""The kernels for enlarged logits agree with PyTorch's operations in float64."""

import pytest
import torch
import torch.nn.functional as F
from kernels.reference import both_kernels, gradients, relative
from torch import Tensor

from convnextv2.inference.pixel_classifier import LogitMap, classes_of
from convnextv2.kernels import choice
from convnextv2.kernels.enlarged import enlarged_classes, enlarged_cross_entropy
from convnextv2.model.upernet import pixel_cross_entropy

pytestmark = pytest.mark.skipif(choice.choose("auto") != "native", reason="no C++ compiler")

CASES = [
    # images, classes, height and width of the logits, rows and columns of pixels
    (2, 59, (12, 9), (48, 36)),
    (1, 150, (16, 16), (64, 64)),
    (3, 8, (7, 5), (31, 23)),  # neither is a multiple of the other
    (2, 9, (1, 1), (16, 24)),  # a single position
    (1, 21, (10, 3), (10, 3)),  # the same size
    (2, 17, (20, 16), (9, 6)),  # smaller than the logits
    (1, 2, (4, 40), (64, 1)),
    (4, 1, (3, 3), (8, 8)),
]


def reference(logits: Tensor, targets: Tensor) -> Tensor:
    enlarged = F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(enlarged, targets, ignore_index=-1, reduction="none")


def drawn(
    images: int, classes: int, size: tuple[int, int], pixels: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(images + classes)
    logits = 4 * torch.randn(images, classes, *size)
    return logits, torch.randint(-1, classes, (images, *pixels)), torch.randn(images, *pixels)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_and_gradients_equal_those_of_pytorch(
    case: tuple[int, int, tuple[int, int], tuple[int, int]],
) -> None:
    logits, targets, weights = drawn(*case)
    logits.requires_grad_()
    exact = logits.detach().double().requires_grad_()
    found, expected = enlarged_cross_entropy(logits, targets), reference(exact, targets)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=4e-6)
    ours, theirs = gradients(found, weights, [logits]), gradients(expected, weights, [exact])
    # Of a single class, the gradient is 0, and PyTorch's in float64 nearly so.
    torch.testing.assert_close(ours[0].double(), theirs[0], rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_of_the_logits_is_taken(layout: torch.memory_format) -> None:
    logits, targets, weights = drawn(*CASES[0])
    logits = logits.to(memory_format=layout).requires_grad_()
    (found,) = gradients(enlarged_cross_entropy(logits, targets), weights, [logits])
    (expected,) = gradients(reference(logits, targets), weights, [logits])
    assert relative(found, expected) < 2e-6


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    logits, targets, weights = drawn(*CASES[0])
    logits.requires_grad_()
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            losses = enlarged_cross_entropy(logits, targets)
            found.append((losses, *gradients(losses, weights, [logits])))
    finally:
        torch.set_num_threads(before)
    for losses, gradient in found[1:]:
        assert torch.equal(losses, found[0][0]) and torch.equal(gradient, found[0][1])


def test_logits_far_apart_have_finite_losses() -> None:
    logits = torch.zeros(1, 9, 2, 2)
    logits[:, 0], logits[:, 1] = 3e4, -3e4
    logits.requires_grad_()
    targets = torch.tensor([[[0, 1], [2, -1]]])
    losses = enlarged_cross_entropy(logits, targets)
    assert losses.tolist() == [[[0.0, 6e4], [3e4, 0.0]]]
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[0, :3, 0, 1], torch.tensor([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_give_a_loss_that_is_not(wrong: float) -> None:
    """This is how training finds out that it has diverged."""
    logits, targets, _ = drawn(*CASES[0])
    logits[1, 3, 4, 4] = wrong
    assert not enlarged_cross_entropy(logits, targets.clamp(min=0)).isfinite().all()


def test_ignored_pixels_alone_teach_nothing() -> None:
    logits, targets, weights = drawn(*CASES[0])
    logits.requires_grad_()
    losses = enlarged_cross_entropy(logits, torch.full_like(targets, -1))
    assert not losses.any() and not gradients(losses, weights, [logits])[0].any()


@pytest.mark.parametrize("wrong", [59, -2, 1 << 40])
def test_targets_of_no_class_are_errors(wrong: int) -> None:
    logits, targets, _ = drawn(*CASES[0])
    targets[1, 3, 3] = wrong
    with pytest.raises(IndexError, match=f"target {wrong}: expected 0 to 58, or -1 for none"):
        enlarged_cross_entropy(logits, targets)


def test_second_derivatives_are_refused_also_behind_a_mean() -> None:
    """There, PyTorch's own check lets them pass as zeros."""
    logits, targets, _ = drawn(*CASES[0])
    leaf = logits.requires_grad_()
    loss = enlarged_cross_entropy(2 * leaf, targets).mean()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(loss, leaf, create_graph=True)


def test_targets_and_gradients_may_be_expanded() -> None:
    logits, targets, weights = drawn(*CASES[0])
    logits.requires_grad_()
    same, alike = targets[:, :1].expand_as(targets), weights[:, :, :1].expand_as(weights)
    found = enlarged_cross_entropy(logits, same)
    expected = enlarged_cross_entropy(logits, same.clone())
    assert torch.equal(found, expected)
    (ours,) = torch.autograd.grad(found, logits, alike)
    assert torch.equal(ours, torch.autograd.grad(expected, logits, alike.clone())[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_logits_of_other_dtypes_are_taken(dtype: torch.dtype) -> None:
    logits, targets, _ = drawn(*CASES[0])
    logits = logits.to(dtype)
    expected = reference(logits.double(), targets).mean()
    assert pixel_cross_entropy(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)
    size = (targets.shape[1], targets.shape[2])
    found, plain = both_kernels(lambda: classes_of([LogitMap(logits[0].float(), (12, 9))], size))
    assert (found == plain).float().mean() > 0.99
    assert torch.equal(classes_of([LogitMap(logits[0], (12, 9))], size), found)


def test_an_image_may_cover_more_than_the_logits_or_nothing() -> None:
    for rows in (1, 4):
        logits = torch.zeros(9, rows, 3)
        logits[5, -1] = 1.0
        for covered in (0.0, 3.0 * rows, 1e25):
            found = enlarged_classes(logits, (covered, 3.0), (8, 8))
            assert found.shape == (8, 8)
        assert (found[1:] == 5).all()


def test_no_images_and_no_pixels_have_no_losses() -> None:
    logits = torch.randn(0, 9, 4, 4, requires_grad=True)
    losses = enlarged_cross_entropy(logits, torch.empty(0, 16, 16, dtype=torch.int64))
    assert losses.shape == (0, 16, 16)
    losses.sum().backward()
    assert logits.grad is not None and logits.grad.shape == (0, 9, 4, 4)


def test_the_loss_of_a_segmentor_uses_it_for_enough_classes_and_coarse_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def noted(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(logits.shape[1])
        return enlarged_cross_entropy(logits, targets)

    monkeypatch.setattr("convnextv2.model.upernet.enlarged_cross_entropy", noted)
    for classes, side in ((5, 6), (6, 6), (6, 24), (7, 12)):
        logits, targets, _ = drawn(2, classes, (side, side), (24, 24))
        found = pixel_cross_entropy(logits, targets.to(torch.int16))
        expected = reference(logits.double(), targets).mean()
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert seen == [6, 7]


def test_a_compiled_graph_has_it_inside() -> None:
    logits, targets, weights = drawn(*CASES[2])
    logits.requires_grad_()
    compiled = torch.compile(enlarged_cross_entropy, backend="aot_eager", fullgraph=True)
    losses = compiled(logits, targets)
    (found,) = gradients(losses, weights, [logits])
    expected = enlarged_cross_entropy(logits, targets)
    assert torch.equal(losses, expected)
    assert torch.equal(found, gradients(expected, weights, [logits])[0])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_classes_are_those_of_the_largest_enlarged_logit(
    case: tuple[int, int, tuple[int, int], tuple[int, int]],
) -> None:
    logits, targets, _ = drawn(*case)
    size = (targets.shape[1], targets.shape[2])
    found = enlarged_classes(logits[0], case[2], size)
    assert found.dtype == torch.int16 and found.shape == size
    exact = F.interpolate(logits[:1].double(), size, mode="bilinear", align_corners=False)[0]
    reached = exact.gather(0, found.long()[None])[0]
    assert (exact.amax(0) - reached).max() < 1e-5
    assert (found == exact.argmax(0)).float().mean() > 0.99


def test_classes_of_an_image_that_covers_a_part_of_the_logits() -> None:
    """They are those of PyTorch's operations, which the kernels' choice switches to."""
    logits = LogitMap(torch.randn(7, 12, 9, generator=torch.manual_seed(0)), (10.4, 8.9))
    found, expected = both_kernels(lambda: classes_of([logits], (83, 71)))
    assert (found == expected).float().mean() > 0.999


def test_the_first_of_several_largest_logits_counts() -> None:
    logits = torch.zeros(20, 3, 3)
    assert not enlarged_classes(logits, (3, 3), (9, 9)).any()
    logits[[18, 11, 3]] = 1.0
    assert (enlarged_classes(logits, (3, 3), (9, 9)) == 3).all()
    logits[11] = 2.0
    assert (enlarged_classes(logits, (3, 3), (9, 9)) == 11).all()


def test_classes_do_not_depend_on_the_number_of_threads() -> None:
    logits, before, found = drawn(*CASES[0])[0][0], torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(enlarged_classes(logits, (12, 9), (50, 31)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("wrong", [float("nan"), float("-inf")])
def test_logits_that_are_no_numbers_still_give_a_class(wrong: float) -> None:
    logits = torch.full((9, 3, 3), wrong)
    assert not enlarged_classes(logits, (3, 3), (9, 9)).any()
