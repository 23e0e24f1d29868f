"""The detector against torchvision's Mask R-CNN, whose settings differ only where it says so."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, _utils
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, masks_to_boxes, roi_align

from convnextv2.errors import CheckpointError
from convnextv2.model import detector_parts
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.detector import Detector
from convnextv2.model.detector_parts import match_anchors
from convnextv2.model.mask_crops import resample
from convnextv2.weights.build import build_model
from convnextv2.weights.description import Description

SIZE = (96, 128)


def build(classes: int = 3, **options: object) -> Detector:
    torch.manual_seed(1)
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)
    settings = {"fpn_channels": 16, "box_dim": 32, "anchor_scale": 4.0, "rois": 64} | options
    return Detector(encoder, classes, **settings)


def whole_masks(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    for mask in masks:
        y, x = (int(torch.randint(0, side - 30, (), generator=random)) for side in size)
        height, width = (int(torch.randint(10, 30, (), generator=random)) for _ in range(2))
        patch = torch.rand(height, width, generator=random) < 0.8
        mask[y : y + height, x : x + width] = patch
        mask[y, x] = mask[y + height - 1, x + width - 1] = 1
    if count:
        masks[0, -20:, -25:] = 1  # at the edge of the image
    return masks


def cut(masks: Tensor) -> dict[str, Tensor]:
    """Masks as the loader cuts them, with two rows and columns of zeros around."""
    pixels, places, start = [torch.empty(0, dtype=torch.uint8)], [], 0
    for mask in masks:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        top, left = max(0, int(rows[0]) - 2), max(0, int(columns[0]) - 2)
        part = mask[top : int(rows[-1]) + 3, left : int(columns[-1]) + 3]
        places.append((start, top, left, *part.shape))
        pixels.append(part.reshape(-1))
        start += part.numel()
    return {
        "mask_pixels": torch.cat(pixels),
        "mask_places": torch.tensor(places, dtype=torch.int64).reshape(-1, 5),
    }


def targets_of(*counts: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The objects of images as the detector takes them, and as torchvision does."""
    ours, theirs = [], []
    for seed, count in enumerate(counts):
        masks = whole_masks(count, seed)
        boxes = torch.zeros(0, 4)
        if count:
            boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0, 1, 1])
        labels = torch.arange(count) % 3
        ours.append({"boxes": boxes, "labels": labels, **cut(masks)})
        theirs.append({"boxes": boxes, "labels": labels + 1, "masks": masks})
    return ours, theirs


class Backbone(nn.Module):
    """The same maps for torchvision."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model, self.out_channels = model, 16

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.model.features(images)


def torchvisions(model: Detector) -> MaskRCNN:
    """torchvision's Mask R-CNN over the same maps, with the same weights."""
    heads = model.roi_heads
    reference = MaskRCNN(
        Backbone(model),
        rpn_anchor_generator=model.rpn.anchor_generator,
        rpn_post_nms_top_n_train=1000,
        rpn_pre_nms_top_n_train=2000,
        box_roi_pool=heads.box_roi_pool,
        box_head=heads.box_head,
        box_predictor=heads.box_predictor,
        box_batch_size_per_image=64,
        mask_roi_pool=heads.mask_roi_pool,
        mask_head=heads.mask_head,
        mask_predictor=heads.mask_predictor,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=SIZE[0],
        max_size=SIZE[1],
        _skip_resize=True,  # in training, where it would draw a size
    )
    reference.rpn.load_state_dict(model.rpn.state_dict())
    return reference


@pytest.mark.parametrize("counts", [(5, 2), (0, 4), (1, 0)])
def test_losses_equal_those_of_torchvision_where_settings_agree(
    counts: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    reference = torchvisions(model)
    ours, theirs = targets_of(*counts)
    images = torch.randn(2, 3, *SIZE)
    torch.manual_seed(7)
    found = model(images, [SIZE, SIZE], ours)

    def plain_l1(input: Tensor, target: Tensor, beta: float, reduction: str) -> Tensor:
        assert reduction == "sum"
        return F.l1_loss(input, target, reduction="sum")

    monkeypatch.setattr(F, "smooth_l1_loss", plain_l1)  # theirs is smooth below 1/9
    torch.manual_seed(7)
    expected = reference(list(images), theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name
    sum(found.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_is_found_equals_what_torchvision_finds() -> None:
    model = build(score_threshold=0.0).eval()
    reference = torchvisions(model).eval()
    reference.roi_heads.score_thresh = 0.0
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        found, expected = model(images, [SIZE, SIZE]), reference(list(images))
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours["scores"]) > 10
        assert torch.allclose(ours["boxes"], theirs["boxes"], atol=1e-4)
        assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-6)
        assert torch.equal(ours["labels"] + 1, theirs["labels"])
        assert ours["masks"].shape == (len(ours["scores"]), 28, 28)


def test_images_of_mixed_sizes_are_found_inside_their_own_size() -> None:
    model = build(score_threshold=0.0).eval()
    with torch.no_grad():
        found = model(torch.randn(2, 3, *SIZE), [SIZE, (40, 50)])
    assert found[1]["boxes"][:, 2].max() <= 50 and found[1]["boxes"][:, 3].max() <= 40
    assert found[0]["boxes"][:, 2].max() > 50


def test_an_image_without_objects_teaches_the_background_alone() -> None:
    model = build()
    ours, _ = targets_of(0)
    losses = model(torch.randn(1, 3, *SIZE), [SIZE], ours)
    assert losses["loss_box_reg"].item() == losses["loss_rpn_box_reg"].item() == 0
    assert losses["loss_mask"].item() == 0 and losses["loss_classifier"].item() > 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_375_objects_are_matched_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(375, 2, generator=random) * 200
    truth = torch.cat([corners, corners + 5 + 20 * torch.rand(375, 2, generator=random)], dim=1)
    corners = torch.rand(4000, 2, generator=random) * 200
    anchors = torch.cat([corners, corners + 5 + 20 * torch.rand(4000, 2, generator=random)], dim=1)
    matcher = _utils.Matcher(0.7, 0.3, allow_low_quality_matches=True)
    expected = matcher(box_iou(truth, anchors))
    assert {-1, -2} < set(expected.tolist())
    whole = match_anchors(truth, anchors, high=0.7, low=0.3)
    monkeypatch.setattr(detector_parts, "_PAIRS_AT_ONCE", 40_000)
    shapes = []
    monkeypatch.setattr(
        detector_parts, "box_iou", lambda a, b: shapes.append((len(a), len(b))) or box_iou(a, b)
    )
    in_parts = match_anchors(truth, anchors, high=0.7, low=0.3)
    assert torch.equal(whole, expected) and torch.equal(in_parts, expected)
    assert max(a * b for a, b in shapes) <= 40_000


def test_cut_masks_are_resampled_as_whole_ones() -> None:
    masks = whole_masks(4)
    boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0, 1, 1])
    boxes = torch.cat([boxes, boxes + torch.tensor([-3.3, 2.7, 4.1, 5.9])])
    boxes = boxes.clamp(min=0).minimum(torch.tensor([SIZE[1], SIZE[0]] * 2).float())
    of = torch.arange(4).repeat(2)
    rois = torch.cat([of[:, None].float(), boxes], dim=1)
    expected = roi_align(masks[:, None].float(), rois, (28, 28), 1.0)[:, 0]
    found = resample(*cut(masks).values(), boxes, of, 28)
    assert torch.allclose(found, expected, atol=1e-4)
    assert cut(masks)["mask_pixels"].numel() < masks.numel() / 10


def test_soft_nms_keeps_overlapping_objects_that_nms_drops() -> None:
    model = build(score_threshold=0.0).eval()
    softly = build(score_threshold=0.0, soft=True, max_detections=300).eval()
    softly.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        [hard], [soft] = model(images, [SIZE]), softly(images, [SIZE])
    assert len(soft["scores"]) > len(hard["scores"])
    assert torch.allclose(hard["scores"][0], soft["scores"][0])
    assert (soft["scores"][:-1] >= soft["scores"][1:]).all()


def test_a_coarser_finest_level_looks_at_fewer_places() -> None:
    fine, coarse = build(masks=False), build(masks=False, finest_stride=8)
    images = torch.randn(1, 3, *SIZE)
    shapes = [
        [tuple(m.shape[-2:]) for m in each.features(images).values()] for each in (fine, coarse)
    ]
    assert shapes[0] == [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    assert shapes[1] == shapes[0][1:]
    ours, _ = targets_of(2)
    assert set(coarse(images, [SIZE], ours)) == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stem_stride", "finest_stride", "anchors"),
    [
        (2, 4, (16, 32, 64, 128)),
        (2, 8, (32, 64, 128)),
        (4, 8, (32, 64, 128, 256)),
        (4, 999, (128, 256)),
    ],
)
def test_the_finest_stride_holds_for_every_stem(stem_stride, finest_stride, anchors) -> None:
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None, stem_stride=stem_stride)
    model = Detector(
        encoder, 2, masks=False, fpn_channels=8, anchor_scale=4.0, finest_stride=finest_stride
    )
    assert model.rpn.anchor_generator.sizes == tuple((side,) for side in anchors)
    found = model.features(torch.randn(1, 3, *SIZE))
    assert len(found) == len(anchors)


@pytest.mark.parametrize("finest_stride", [4, 8])
def test_every_parameter_that_is_trained_has_a_gradient(finest_stride: int) -> None:
    """Otherwise the optimizer has no state for it, and the run cannot be resumed."""
    model = build(finest_stride=finest_stride)
    images = torch.randn(2, 3, *SIZE)
    ours, _ = targets_of(2, 1)
    torch.stack(list(model(images, [SIZE] * 2, ours).values())).sum().backward()
    without = [name for name, each in model.named_parameters() if each.grad is None]
    frozen = [name for name, each in model.named_parameters() if not each.requires_grad]
    assert without == frozen
    assert frozen == ["pyramid.norms.0.weight", "pyramid.norms.0.bias"] * (finest_stride == 8)


def test_settings_of_mmdetection() -> None:
    """mmdet's mask-rcnn_r50_fpn, as the official code uses it; see docs/how-to/detection.md."""
    encoder = ConvNeXtV2((1, 1, 1, 1), (8, 16, 24, 32), num_classes=None)
    model = Detector(encoder, 80)
    anchors = model.rpn.anchor_generator
    assert anchors.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert anchors.aspect_ratios == ((0.5, 1.0, 2.0),) * 5
    assert model.rpn._pre_nms_top_n == {"training": 2000, "testing": 1000}
    assert model.rpn._post_nms_top_n == {"training": 1000, "testing": 1000}
    assert model.rpn.nms_thresh == 0.7
    assert (
        model.rpn.fg_bg_sampler.batch_size_per_image,
        model.rpn.fg_bg_sampler.positive_fraction,
    ) == (256, 0.5)
    heads = model.roi_heads
    assert (heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction) == (
        512,
        0.25,
    )
    assert heads.box_coder.weights == (10.0, 10.0, 5.0, 5.0)  # stds 0.1 0.1 0.2 0.2
    assert heads.box_roi_pool.output_size == (7, 7) and heads.mask_roi_pool.output_size == (14, 14)
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
    assert heads.box_predictor.bbox_pred.out_features == 4 * 81  # a box for each class
    assert [block[0].out_channels for block in model.fpn.layer_blocks] == [256] * 4


def test_the_trial_counts_memory_without_values() -> None:
    model = build().to("meta")
    total = model.trial(torch.zeros(2, 3, *SIZE, device="meta"))
    assert total.shape == () and total.device.type == "meta"
    total.backward()


def test_regions_are_cut_at_the_scales_of_the_maps_whatever_comes_first() -> None:
    """torchvision guesses the scales from the first images, here a small one on a large canvas."""
    images = torch.randn(1, 3, *SIZE)
    small, large = build().eval(), build().eval()
    with torch.no_grad():
        small(images, [(20, 24)])
        [first], [second] = small(images, [SIZE]), large(images, [SIZE])
    assert torch.equal(first["boxes"], second["boxes"])
    assert large.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_anchors_lie_at_the_strides_of_their_levels() -> None:
    model = build(masks=False)
    features = model.features(torch.zeros(1, 3, *SIZE))
    [anchors] = model.rpn.anchor_generator(
        ImageList(torch.zeros(1, 3, *SIZE), [SIZE]), list(features.values())
    )
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[-3:].tolist() == [[64, 64]] * 3  # the last of 2 x 2 positions of stride 64
    assert centres[3].tolist() == [4, 0]  # the second position of stride 4


def test_rows_of_classes_with_the_same_name_are_taken() -> None:
    from convnextv2.training.dense_init import load_around
    from convnextv2.weights.adapt import LoadReport

    ours, theirs = build(3), build(2)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    nothing = LoadReport([], [], [], [])
    report = load_around(ours, nothing, theirs.state_dict(), ["cat", "dog"], ["dog", "cow", "cat"])
    after, given = ours.state_dict(), theirs.state_dict()
    name = "roi_heads.box_predictor.bbox_pred.weight"
    assert torch.equal(after[name][4:8], given[name][8:12])  # dog
    assert torch.equal(after[name][8:12], before[name][8:12])  # cow keeps its random values
    assert torch.equal(after[name][12:16], given[name][4:8])  # cat
    assert torch.equal(after[name][:4], given[name][:4])  # background
    name = "roi_heads.mask_predictor.mask_fcn_logits.bias"
    assert after[name][[0, 1, 3]].tolist() == given[name][[0, 2, 1]].tolist()
    assert (name, "rows of 2 of 3 classes, by name") in report.adapted
    assert torch.equal(after["rpn.head.bbox_pred.weight"], given["rpn.head.bbox_pred.weight"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_detections", "abc"),
        ("max_detections", -1),
        ("proposals", True),
        ("rois", 0),
        ("finest_stride", 0),
        ("anchor_scale", -3.0),
        ("anchor_scale", float("inf")),
        ("score_threshold", float("nan")),
        ("masks", 1),
    ],
)
def test_values_of_a_file_that_no_detector_has_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} = .*: expected "):
        build(**{name: value})
    arguments = build().arguments
    description = Description("detection", "custom", arguments, head={name: value})
    with pytest.raises(CheckpointError, match=f"{name} = "):
        build_model(description)
