"""The parts of a detector that derive from torchvision's: anchors, proposals and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, box_iou
from torchvision.ops.boxes import clip_boxes_to_image, remove_small_boxes
from torchvision.ops.poolers import initLevelMapper

from convnextv2.model.layers import full_precision
from convnextv2.model.mask_crops import resample
from convnextv2.model.objects import BOX_SIDE, MASK_SIDE, Found, Targets
from convnextv2.model.soft_nms import soft_nms

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""
_PAIRS_AT_ONCE = 1 << 22
"""Pairs of objects and anchors whose IoU is computed at once."""


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """torchvision's anchors, one size for each level, at the strides that the levels have.

    torchvision derives the strides from the sizes of image and map, which are not multiples of each
    other on the coarsest level.

    Args:
        strides: Pixels per position of each level.
        scale: The side of an anchor divided by the stride of its level.
    """

    def __init__(self, strides: Sequence[int], scale: float) -> None:
        sizes = tuple((scale * stride,) for stride in strides)
        super().__init__(sizes, (RATIOS,) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors of each image, float32 (A, 4)."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        grids = [list(each.shape[-2:]) for each in feature_maps]
        steps = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, steps))
        return [anchors] * len(image_list.image_sizes)


def region_pool(levels: list[str], strides: Sequence[int], side: int) -> MultiScaleRoIAlign:
    """Build the layer that crops regions from the maps.

    torchvision guesses the scales of the maps from the first images that it sees, and is wrong if
    these are small pictures on a large canvas. Here the scales are given.

    Args:
        levels: The names of the maps, the finest first.
        strides: Pixels per position of each map.
        side: The side of a crop, in positions.
    """
    pool = MultiScaleRoIAlign(levels, output_size=side, sampling_ratio=2)
    pool.scales = [1 / stride for stride in strides]
    finest, coarsest = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
    pool.map_levels = initLevelMapper(finest, coarsest)
    return pool


class FloatRPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's head, with float32 results in every precision, since boxes need them."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute logits and shifts of the anchors of each level."""
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class FloatPredictor(FastRCNNPredictor):  # type: ignore[misc]
    """torchvision's predictor, with float32 results in every precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and shifts of the classes."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's RPN with plain L1, and with bounded memory for images with many objects."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Assign an object or the background to each anchor; see torchvision's method.

        Returns:
            For each image, float32 (A,) with 1 for objects, 0 for background and -1 for neither,
            and float32 (A, 4), the target box of each anchor.
        """
        labels, boxes = [], []
        for each, target in zip(anchors, targets, strict=True):
            truth = target["boxes"]
            if not len(truth):
                labels.append(each.new_zeros(len(each)))
                boxes.append(torch.zeros_like(each))
                continue
            matched = match_anchors(
                truth,
                each,
                high=self.proposal_matcher.high_threshold,
                low=self.proposal_matcher.low_threshold,
            )
            labels.append((matched >= 0).float() - (matched == -2).float())
            boxes.append(truth[matched.clamp(min=0)])
        return labels, boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Compute the losses of objectness and of boxes, with plain L1 for the latter."""
        positive, negative = (
            torch.where(torch.cat(each))[0] for each in self.fg_bg_sampler(labels)
        )
        sampled = torch.cat([positive, negative])
        differences = pred_bbox_deltas[positive] - torch.cat(regression_targets)[positive]
        box_loss = differences.abs().sum() / sampled.numel()
        objectness_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled]
        )
        return objectness_loss, box_loss


def match_anchors(truth: Tensor, anchors: Tensor, *, high: float, low: float) -> Tensor:
    """Match anchors with objects as torchvision's `Matcher` does, a few objects at a time.

    An anchor is matched with the object with which its IoU is largest. This IoU must be at least
    `high`, unless the anchor has the largest IoU of all anchors with some object.

    Args:
        truth: float32 (n, 4), n > 0.
        anchors: float32 (A, 4).
        high: The IoU from which an anchor counts as an object.
        low: The IoU below which an anchor counts as background.

    Returns:
        int64 (A,): the object, -1 for background and -2 for neither.
    """
    at_once = max(1, _PAIRS_AT_ONCE // len(anchors))
    best_iou = anchors.new_full((len(anchors),), -1.0)
    best = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    largest = []  # IoU of each object with any anchor
    for start in range(0, len(truth), at_once):
        iou = box_iou(truth[start : start + at_once], anchors)
        value, index = iou.max(0)
        is_better = value > best_iou
        best_iou = torch.where(is_better, value, best_iou)
        best = torch.where(is_better, index + start, best)
        largest.append(iou.max(1).values)
    matched = torch.where(best_iou >= high, best, torch.where(best_iou < low, -1, -2))
    for start, most in zip(range(0, len(truth), at_once), largest, strict=True):
        iou = box_iou(truth[start : start + at_once], anchors)
        is_largest = (iou == most[:, None]).any(0)
        matched = torch.where(is_largest, best, matched)
    return matched


class Heads(RoIHeads):  # type: ignore[misc]
    """torchvision's box and mask heads, with plain L1, soft-NMS and masks that are cut to boxes.

    Attributes:
        soft: Whether linear soft-NMS takes the place of non-maximum suppression.
    """

    soft: bool = False

    def check_targets(self, targets: Targets | None) -> None:
        """Check nothing: the masks of these targets have other names than torchvision's."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None = None,
        *,
        threshold: float = 0.0,
        masks: bool = True,
    ) -> tuple[Found, dict[str, Tensor]]:
        """Compute the losses in training, and otherwise find objects; see `Detector.forward`."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        every = self.postprocess_detections(
            *self._classify(features, proposals, image_shapes), proposals, image_shapes
        )
        found = []
        for box, score, label in zip(*every, strict=True):
            kept = score.double() >= threshold  # in float64, as a reader of the scores compares
            found.append({"boxes": box[kept], "labels": label[kept], "scores": score[kept]})
        if masks and self.has_mask():
            logits = self._masks(features, [each["boxes"] for each in found], image_shapes)
            probs = maskrcnn_inference(logits, [each["labels"] for each in found])
            for each, prob in zip(found, probs, strict=True):
                each["masks"] = prob[:, 0]
        return found, {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: Targets | None,
    ) -> dict[str, Tensor]:
        assert targets is not None
        proposals, matched, labels, wanted = self.select_training_samples(proposals, targets)
        logits, deltas = self._classify(features, proposals, image_shapes)
        every = torch.cat(labels)
        positive = torch.where(every > 0)[0]
        deltas = deltas.reshape(len(every), -1, 4)
        difference = deltas[positive, every[positive]] - torch.cat(wanted)[positive]
        losses = {
            "loss_classifier": F.cross_entropy(logits, every),
            "loss_box_reg": difference.abs().sum() / every.numel(),
        }
        if self.has_mask():
            are_objects = [torch.where(each > 0)[0] for each in labels]
            boxes = [each[i] for each, i in zip(proposals, are_objects, strict=True)]
            objects = [each[i] for each, i in zip(matched, are_objects, strict=True)]
            masks = self._masks(features, boxes, image_shapes)
            losses["loss_mask"] = _mask_loss(masks, boxes, objects, every[positive], targets)
        return losses

    def _classify(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        cut = self.box_roi_pool(features, proposals, image_shapes)
        found: tuple[Tensor, Tensor] = self.box_predictor(self.box_head(cut))
        return found

    def _masks(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        cut = self.mask_roi_pool(features, boxes, image_shapes)
        logits: Tensor = self.mask_predictor(self.mask_head(cut))
        return logits.float()

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Choose the detections to report.

        Returns:
            The boxes, scores and labels of each image, the best first.
        """
        if not self.soft:
            return super().postprocess_detections(
                class_logits, box_regression, proposals, image_shapes
            )
        counts = [len(each) for each in proposals]
        decoded = self.box_coder.decode(box_regression, proposals).split(counts)
        probs = class_logits.softmax(-1).split(counts)
        boxes, scores, labels = list[Tensor](), list[Tensor](), list[Tensor]()
        for box, prob, size in zip(decoded, probs, image_shapes, strict=True):
            found = self._softly(clip_boxes_to_image(box, size), prob)
            for all_of_them, one in zip((boxes, scores, labels), found, strict=True):
                all_of_them.append(one)
        return boxes, scores, labels

    def _softly(self, boxes: Tensor, probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for label in range(1, probs.shape[-1]):
            chosen = torch.where(probs[:, label] > self.score_thresh)[0]
            chosen = chosen[remove_small_boxes(boxes[chosen, label], 1e-2)]
            kept, scores = soft_nms(
                boxes[chosen, label], probs[chosen, label], iou_threshold=self.nms_thresh
            )
            parts.append((boxes[chosen[kept], label], scores, torch.full_like(kept, label)))
        every, scores, labels = (torch.cat(each) for each in zip(*parts, strict=True))
        order = scores.argsort(descending=True, stable=True)[: self.detections_per_img]
        return every[order], scores[order], labels[order]


def _mask_loss(
    logits: Tensor, boxes: list[Tensor], objects: list[Tensor], labels: Tensor, targets: Targets
) -> Tensor:
    """Compute the mean binary cross entropy of the masks of the right classes.

    Args:
        logits: float32 (m, classes, 28, 28), of the boxes of all images.
        boxes: float32 (m_i, 4) of each image.
        objects: int64 (m_i,), the object that each box belongs to.
        labels: int64 (m,), torchvision's class numbers.
        targets: The objects of each image.
    """
    if not len(labels):
        return logits.sum() * 0  # all ranks expect gradients of the mask head in every step
    with full_precision(logits.device):
        wanted = [
            resample(target["mask_pixels"], target["mask_places"], box, each, logits.shape[-1])
            for target, box, each in zip(targets, boxes, objects, strict=True)
        ]
    rows = torch.arange(len(labels), device=labels.device)
    return F.binary_cross_entropy_with_logits(logits[rows, labels], torch.cat(wanted))


def build_proposal_network(anchors: Anchors, fpn_channels: int, proposals: int) -> ProposalNetwork:
    """Build the region proposal network with the settings of Mask R-CNN.

    Args:
        anchors: The anchors.
        fpn_channels: Channels of the maps.
        proposals: The number of proposals after non-maximum suppression.
    """
    # torchvision's names for these numbers end in testing and training.
    return ProposalNetwork(
        anchors,
        FloatRPNHead(fpn_channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * proposals, "testing": proposals},
        post_nms_top_n={"training": proposals, "testing": proposals},
        nms_thresh=0.7,
    )


def build_heads(
    levels: list[str],
    strides: Sequence[int],
    fpn_channels: int,
    num_classes: int,
    *,
    box_dim: int,
    rois: int,
    score_threshold: float,
    max_detections: int,
    soft: bool,
) -> Heads:
    """Build the heads for boxes and classes.

    Args:
        levels: The names of the maps that regions are cropped from, the finest first.
        strides: Pixels per position of each map.
        fpn_channels: Channels of the maps.
        num_classes: The number of classes, without the background.
        box_dim: The width of the two layers of the box head.
        rois: The number of proposals that the box head is trained on in each image.
        score_threshold: Objects with a lower score are not reported.
        max_detections: The largest number of objects found in an image.
        soft: Whether linear soft-NMS takes the place of non-maximum suppression.
    """
    heads = Heads(
        region_pool(levels, strides, BOX_SIDE),
        TwoMLPHead(fpn_channels * BOX_SIDE**2, box_dim),
        FloatPredictor(box_dim, num_classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=rois,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=score_threshold,
        nms_thresh=0.5,
        detections_per_img=max_detections,
    )
    heads.soft = soft
    return heads


def add_masks(
    heads: Heads, levels: list[str], strides: Sequence[int], fpn_channels: int, num_classes: int
) -> None:
    """Add the head for masks; see `build_heads`."""
    heads.mask_roi_pool = region_pool(levels, strides, MASK_SIDE // 2)
    heads.mask_head = MaskRCNNHeads(fpn_channels, (fpn_channels,) * 4, 1)
    heads.mask_predictor = MaskRCNNPredictor(fpn_channels, fpn_channels, num_classes + 1)
