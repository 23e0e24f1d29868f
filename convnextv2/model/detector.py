"""Detection and instance segmentation: Faster and Mask R-CNN on the pyramid of a ConvNeXt V2.

The parts are torchvision's. Differences from its `MaskRCNN` follow MMDetection, which the paper
used: plain L1 losses for boxes, at most 1000 proposals for training, and linear soft-NMS as an
option. Images must already be normalised and resized. Subclasses of torchvision's classes are in
`detector_parts`, which is imported only when a detector is built: code that only checks whether a
network is a detector need not wait for torchvision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.objects import BOX_SIDE, MASK_SIDE, Found, Targets
from convnextv2.model.pyramid import Pyramid
from convnextv2.sizes import MAX_ANCHOR_SCALE, MAX_REGIONS, MAX_WIDTH


class Detector(nn.Module):
    """Finds objects: a box, a class and optionally a mask for each.

    Args:
        encoder: A network that was built with `num_classes=None`.
        num_classes: The number of classes, without the background.
        masks: Whether there is a mask head.
        fpn_channels: Channels of the feature pyramid network and of the mask head.
        finest_stride: The stride of the finest level on which objects are detected. Twice that of
            the first stage suits large objects and takes a third of the time. If no level has this
            stride, the next coarser one is the finest.
        anchor_scale: The side of a level's anchors divided by the stride of the level.
        box_dim: The width of the two layers of the box head.
        proposals: The number of proposals after non-maximum suppression.
        rois: The number of proposals that the box head is trained on in each image.
        max_detections: The largest number of objects found in an image.
        score_threshold: Objects with a lower score are not reported.
        soft: Whether linear soft-NMS takes the place of non-maximum suppression.

    Raises:
        ValueError: A keyword argument has an invalid value. They are checked because they may come
            from an untrusted file.
    """

    def __init__(
        self,
        encoder: ConvNeXtV2,
        num_classes: int,
        *,
        masks: bool = True,
        fpn_channels: int = 256,
        finest_stride: int = 4,
        anchor_scale: float = 8.0,
        box_dim: int = 1024,
        proposals: int = 1000,
        rois: int = 512,
        max_detections: int = 100,
        score_threshold: float = 0.05,
        soft: bool = False,
    ) -> None:
        super().__init__()
        # The arguments that a weights file needs to rebuild this network.
        self.arguments: dict[str, Any] = encoder.arguments | {"num_classes": num_classes}
        self.head_arguments: dict[str, Any] = {
            "masks": masks,
            "fpn_channels": fpn_channels,
            "finest_stride": finest_stride,
            "anchor_scale": anchor_scale,
            "box_dim": box_dim,
            "proposals": proposals,
            "rois": rois,
            "max_detections": max_detections,
            "score_threshold": score_threshold,
            "soft": soft,
        }
        _check(self.head_arguments)
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        from convnextv2.model import detector_parts as parts

        self.num_classes, self.has_masks = num_classes, masks
        self.pyramid = pyramid = Pyramid(encoder)
        self._first = sum(stride < finest_stride for stride in pyramid.strides[:-1])
        for norm in pyramid.norms[: self._first]:  # no loss depends on it, so no gradient comes
            norm.requires_grad_(False)
        dims = list(pyramid.dims[self._first :])
        strides = list(pyramid.strides[self._first :])
        self.levels = [str(i) for i in range(len(dims))]
        self.fpn = FeaturePyramidNetwork(dims, fpn_channels, extra_blocks=LastLevelMaxPool())
        anchors = parts.Anchors([*strides, 2 * strides[-1]], anchor_scale)
        self.rpn = parts.build_proposal_network(anchors, fpn_channels, proposals)
        self.roi_heads = parts.build_heads(
            self.levels, strides, fpn_channels, num_classes, box_dim=box_dim, rois=rois,
            score_threshold=score_threshold, max_detections=max_detections, soft=soft,
        )  # fmt: skip
        if masks:
            parts.add_masks(self.roi_heads, self.levels, strides, fpn_channels, num_classes)

    @property
    def encoder(self) -> ConvNeXtV2:
        """The encoder."""
        return self.pyramid.encoder

    @property
    def class_tensors(self) -> dict[str, tuple[int, int]]:
        """The tensors with rows for classes: their rows for the background, and for each class."""
        heads = {"box_predictor.cls_score": (1, 1), "box_predictor.bbox_pred": (4, 4)}
        if self.has_masks:
            heads["mask_predictor.mask_fcn_logits"] = (1, 1)
        return {
            f"roi_heads.{name}.{part}": rows
            for name, rows in heads.items()
            for part in ("weight", "bias")
        }

    def forward(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Targets | None = None,
        *,
        threshold: float = 0.0,
        masks: bool = True,
    ) -> dict[str, Tensor] | Found:
        """Compute the losses in training, and otherwise find objects.

        Args:
            images: (N, C, H, W), normalised, with sides that are multiples of the total stride.
            sizes: Height and width of the part of each image that is not padding.
            targets: The objects of each image; only for training.
            threshold: Objects with a lower score are not reported, and their masks are not
                computed. The score threshold of the network also applies. Not used in training.
            masks: Whether to compute masks, if the network has a mask head. Not used in training.

        Returns:
            In training, the losses by torchvision's names: loss_objectness, loss_rpn_box_reg,
            loss_classifier, loss_box_reg and with masks loss_mask. Otherwise the objects found, in
            px of these images.
        """
        from torchvision.models.detection.image_list import ImageList

        features = self.features(images)
        listed = ImageList(images, list(sizes))
        ours = None
        if self.training:
            assert targets is not None, "training needs targets"
            # torchvision counts the background as class 0.
            ours = [{**target, "labels": target["labels"] + 1} for target in targets]
        proposals, proposal_losses = self.rpn(listed, features, ours)
        found, losses = self.roi_heads(
            features, proposals, listed.image_sizes, ours, threshold=threshold, masks=masks
        )
        if self.training:
            return {**proposal_losses, **losses}
        return [{**each, "labels": each["labels"] - 1} for each in found]

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the maps of the feature pyramid network in float32, the finest first."""
        maps = self.pyramid(images)[self._first :]
        levels = self.fpn(OrderedDict(zip(self.levels, maps, strict=True)))
        return OrderedDict((name, level.float()) for name, level in levels.items())

    def trial(self, images: Tensor) -> Tensor:
        """Run every layer on as much data as in a training step, without reading any value.

        This way, the memory of a step can be counted on the meta device.

        Args:
            images: (N, C, H, W).

        Returns:
            A scalar.
        """
        features = self.features(images)
        logits, deltas = self.rpn.head(list(features.values()))
        total = sum(each.sum() for each in (*logits, *deltas))
        channels, heads = self.fpn.layer_blocks[0][0].out_channels, self.roi_heads
        count = len(images) * heads.fg_bg_sampler.batch_size_per_image
        # The stand-ins for crops depend on the maps, so that these are kept for the backward pass.
        anchor = features[self.levels[0]].mean()
        cut = anchor.new_zeros(count, channels, BOX_SIDE, BOX_SIDE) + anchor
        for each in heads.box_predictor(heads.box_head(cut)):
            total = total + each.sum()
        if self.has_masks:
            cut = anchor.new_zeros(count // 4, channels, MASK_SIDE // 2, MASK_SIDE // 2) + anchor
            total = total + heads.mask_predictor(heads.mask_head(cut)).sum()
        assert isinstance(total, Tensor)
        return total


def _check(arguments: Mapping[str, Any]) -> None:
    """Raise ValueError if an argument of a `Detector` has an invalid value."""
    for name, value in arguments.items():
        if name in ("masks", "soft"):
            is_right, expected = isinstance(value, bool), "true or false"
        elif name == "score_threshold":
            is_right, expected = _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
        elif name == "anchor_scale":
            is_right = _is_number(value) and 0 < value <= MAX_ANCHOR_SCALE
            expected = f"a number > 0 and <= {MAX_ANCHOR_SCALE:,}"
        else:
            most = MAX_WIDTH if name in ("fpn_channels", "box_dim") else MAX_REGIONS
            is_right = isinstance(value, int) and _is_number(value) and 1 <= value <= most
            expected = f"a whole number >= 1 and <= {most:,}"
        if not is_right:
            raise ValueError(f"{name} = {value!r}: expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
