"""Detectors of torchvision and a segmentor of segmentation-models-pytorch: training, predictions.

They have random weights, and as many regions of an image as ours. Their images are scaled, cropped,
flipped and coloured as ours, by torchvision's transforms.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dense_scores import categories, read_map
from dense_sets import DenseSet, count_classes, images_of
from equal_time import Spent, train_theirs
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks
from torch import Tensor, nn
from torchvision import ops, tv_tensors
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = tuple(round(255 * value) for value in MEAN)
IGNORED = 255
STRIDE = 32


def colours() -> v2.Transform:
    """Return the changes of colours that our recipes make, each with a probability of 0.5."""
    changes = (
        v2.ColorJitter(brightness=32 / 255),
        v2.ColorJitter(contrast=0.5),
        v2.ColorJitter(saturation=0.5),
        v2.ColorJitter(hue=18 / 360),
    )
    return v2.Compose([v2.RandomApply([each], p=0.5) for each in changes])


def endless(count: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Yield batches of indices for ever, each image once in a pass. Partial batches are dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


class Objects:
    """Training images with objects, as torchvision's detectors take them.

    Args:
        folder: A folder that `dense_sets.lay_out` made.
        kind: The set.
        size: Height and width of the images.
    """

    def __init__(self, folder: Path, kind: DenseSet, size: int) -> None:
        found = json.loads((folder / "instances_train.json").read_text())
        self._folder, self._masks = folder / "images", kind.task == "masks"
        # torchvision counts the background as class 0.
        self._labels = {each: i + 1 for i, each in enumerate(categories(folder))}
        by_image: dict[int, list[dict[str, Any]]] = {each["id"]: [] for each in found["images"]}
        for each in found["annotations"]:
            if not each.get("iscrowd"):
                by_image[each["image_id"]].append(each)
        self._listed = [(each["file_name"], by_image[each["id"]]) for each in found["images"]]
        self._transform = v2.Compose(
            [
                v2.ScaleJitter((size, size), kind.jitter, antialias=True),
                v2.RandomCrop(
                    (size, size),
                    pad_if_needed=True,
                    fill={tv_tensors.Image: FILL, tv_tensors.Mask: 0, "others": 0},
                ),
                v2.RandomHorizontalFlip(0.5),
                colours(),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=1),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self._listed)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        name, annotations = self._listed[index]
        with Image.open(self._folder / name) as opened:
            image = tv_tensors.Image(F.pil_to_tensor(opened.convert("RGB")))
        boxes = torch.tensor([each["bbox"] for each in annotations]).reshape(-1, 4).float()
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
                format="XYXY",
                canvas_size=image.shape[-2:],
            ),
            "labels": torch.tensor([self._labels[each["category_id"]] for each in annotations]),
        }
        target["labels"] = target["labels"].long()
        if self._masks:
            decoded = [coco_masks.decode(each["segmentation"]) for each in annotations]
            whole = np.stack(decoded) if decoded else np.zeros((0, *image.shape[-2:]), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(whole))
        image, target = self._transform(image, target)
        if self._masks:  # what a crop left of an object has a smaller box
            kept = target["masks"].as_subclass(Tensor).flatten(1).bool().any(1)
            target = {key: value[kept] for key, value in target.items()}
            boxes = ops.masks_to_boxes(target["masks"])
            boxes[:, 2:] += 1  # it names the last pixels, not the edges behind them
            target["boxes"] = boxes
        return image.as_subclass(Tensor), {
            key: value.as_subclass(Tensor) for key, value in target.items()
        }


class Maps:
    """Training images with the class of every pixel.

    Args:
        folder: A folder that `dense_sets.lay_out` made.
        kind: The set.
        size: Height and width of the images.
    """

    def __init__(self, folder: Path, kind: DenseSet, size: int) -> None:
        self._images = images_of(folder, "train", kind.task)
        self._folder, self._size, self._jitter = folder, size, kind.jitter
        self._crop = v2.Compose(
            [
                v2.RandomCrop(
                    (size, size),
                    pad_if_needed=True,
                    fill={tv_tensors.Image: FILL, tv_tensors.Mask: IGNORED},
                ),
                v2.RandomHorizontalFlip(0.5),
                colours(),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self._images[index]
        with Image.open(path) as opened:
            image = tv_tensors.Image(F.pil_to_tensor(opened.convert("RGB")))
        classes = read_map(self._folder / "annotations/train" / f"{path.stem}.png")
        mask = tv_tensors.Mask(torch.from_numpy(classes.copy()))
        side = round(self._size * random.uniform(*self._jitter))
        image, mask = self._crop(F.resize(image, [side], antialias=True), F.resize(mask, [side]))
        return normalised(image), mask.as_subclass(Tensor).long()


def normalised(image: Tensor) -> Tensor:
    """Normalise uint8 (3, H, W)."""
    return F.normalize(F.to_dtype(image.as_subclass(Tensor), torch.float32, True), MEAN, DEVIATION)


def build(folder: Path, kind: DenseSet, size: int, *, light: bool) -> nn.Module:
    """Build the peer for a set, with random weights.

    Args:
        folder: The images.
        kind: The set.
        size: The image size.
        light: Whether it is the Mask R-CNN with the small encoder and the simple box head.
    """
    if kind.task == "pixels":
        import segmentation_models_pytorch as smp

        return smp.UPerNet("tu-resnet18", encoder_weights=None, classes=count_classes(folder))
    settings = {
        "num_classes": len(categories(folder)) + 1,
        "min_size": size,
        "max_size": size,
        # The values of our recipe. With torchvision's 512 and 2000, a step takes about four times
        # as long.
        "box_batch_size_per_image": 128,
        "rpn_post_nms_top_n_train": 300,
        "rpn_post_nms_top_n_test": 300,
        # The defaults of the 320 px detector are for trained weights: 150, and none below 0.05.
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_score_thresh": 0.0,
    }
    if light:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            norm_layer=nn.BatchNorm2d,  # the frozen one would never learn its statistics
            trainable_layers=5,
        )
        model: nn.Module = detection.MaskRCNN(backbone, **settings)
    else:
        make = (
            detection.maskrcnn_resnet50_fpn_v2
            if kind.task == "masks"
            else detection.fasterrcnn_mobilenet_v3_large_320_fpn
        )
        model = make(weights=None, weights_backbone=None, **settings)
    if kind.finest_stride == 4:
        sides = [(round(kind.anchor_scale * stride),) for stride in (4, 8, 16, 32, 64)]
        model.rpn.anchor_generator = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
    return model


def train(
    model: nn.Module, folder: Path, kind: DenseSet, *, size: int, seconds: float, lr: float,
    seed: int,
) -> Spent:  # fmt: skip
    """Train a peer on the split train of a folder."""
    random.seed(seed)
    torch.manual_seed(seed)
    images: Maps | Objects = (Maps if kind.task == "pixels" else Objects)(folder, kind, size)
    indices = endless(len(images), kind.batch, seed)
    batches = ([images[i] for i in batch] for batch in indices)

    def loss_of(batch: list[tuple[Tensor, Any]]) -> Tensor:
        inputs, targets = zip(*batch, strict=True)
        if kind.task == "pixels":
            logits = model(torch.stack(inputs))
            return nn.functional.cross_entropy(logits, torch.stack(targets), ignore_index=IGNORED)
        losses: dict[str, Tensor] = model(list(inputs), list(targets))
        return torch.stack(list(losses.values())).sum()

    return train_theirs(
        model, batches, loss_of, seconds=seconds, lr=lr,
        batches_per_epoch=len(images) // kind.batch,
    )  # fmt: skip


@torch.inference_mode()
def find_objects(model: nn.Module, folder: Path, split: str) -> list[dict[str, Any]]:
    """Find the objects in the images of a split, as COCO has results."""
    model.eval()
    ids, results = categories(folder), []
    found = json.loads((folder / f"instances_{split}.json").read_text())
    for each in found["images"]:
        with Image.open(folder / "images" / each["file_name"]) as opened:
            image = F.to_dtype(F.pil_to_tensor(opened.convert("RGB")), torch.float32, True)
        [objects] = model([image])
        boxes = objects["boxes"].double()
        boxes[:, 2:] -= boxes[:, :2]
        for i, box in enumerate(boxes.tolist()):
            one = {
                "image_id": each["id"],
                "category_id": ids[int(objects["labels"][i]) - 1],
                "bbox": box,
                "score": float(objects["scores"][i]),
            }
            if "masks" in objects:
                mask = (objects["masks"][i, 0] > 0.5).numpy().astype(np.uint8)
                one["segmentation"] = coco_masks.encode(np.asfortranarray(mask))
            results.append(one)
    return results


@torch.inference_mode()
def find_classes(model: nn.Module, image: Path, size: int) -> NDArray[np.uint8]:
    """Find the class of every pixel of an image, whose short side is resized to `size`."""
    model.eval()
    with Image.open(image) as opened:
        whole = F.pil_to_tensor(opened.convert("RGB"))
    resized = normalised(F.resize(whole, [size], antialias=True))[None]
    height, width = resized.shape[-2:]
    padded = nn.functional.pad(resized, (0, -width % STRIDE, 0, -height % STRIDE))
    logits = model(padded)[..., :height, :width]
    logits = nn.functional.interpolate(logits, whole.shape[-2:], mode="bilinear")
    return logits[0].argmax(0).numpy().astype(np.uint8)
