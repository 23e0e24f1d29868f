"""Training steps and inference of detectors and segmentors, beside those of other libraries.

Ours are those of the recipes detect_small_data and segment_small_data, with the atto encoder. The
peers are their small networks as they come, without pre-trained weights. All see images of one
size, which nobody resizes, and the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from works import Group, Work, choose, dtype_name, precisions, random_images, step

from convnextv2.inference.dense import lay_out
from convnextv2.inference.pixel_classifier import LogitMap, classes_of
from convnextv2.model.convnext import create_model
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.recipe.read import read_recipe
from convnextv2.tasks.detection.goal import build_detector
from convnextv2.tasks.segmentation.goal import build_segmentor

CLASSES, OBJECTS = 20, 8
BATCH = 4
SIZES = (320, 512)
OURS = "convnextv2 atto"
BOXES = (OURS, "torchvision, MobileNetV3-Large FPN")
MASKS = (OURS, "torchvision, ResNet-50 FPN v2")
PIXELS = (OURS, "segmentation-models-pytorch, UPerNet of ResNet-18")


def groups(device: torch.device) -> list[Group]:
    """List the groups of detection and segmentation."""
    found = []
    for work, contestants, build in (
        ("boxes", BOXES, detection),
        ("masks", MASKS, partial(detection, masks=True)),
        ("pixels", PIXELS, segmentation),
    ):
        needs = (
            "segmentation_models_pytorch" if work == "pixels" else "torchvision.models.detection"
        )
        for trains, size, dtype in (
            (trains, size, dtype)
            for trains in (True, False)
            for size in SIZES
            for dtype in precisions(device)
        ):
            found.append(
                Group(
                    f"dense-{work}-{'train' if trains else 'infer'}",
                    partial(build, size=size, dtype=dtype, device=device, trains=trains),
                    images=BATCH,
                    precision=dtype_name(dtype),
                    case=f"{size} px",
                    memory_of=contestants,
                    needs=needs,
                )
            )
    return found


def detection(
    *,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    trains: bool,
    masks: bool = False,
    only: Sequence[str] = (),
) -> dict[str, Work]:
    """Make the steps, or the answers, of the detectors that are named."""
    contestants = MASKS if masks else BOXES
    images = random_images(BATCH, device, size)
    theirs, ours = objects(size, device, masks=masks)
    works: dict[str, Work] = {}
    if not only or OURS in only:
        model = our_detector(masks)
        model = model.to(device) if trains else lay_out(model, device)
        sizes = [(size, size)] * BATCH
        works[OURS] = work_of(
            model, lambda: model(images, sizes, ours if trains else None), dtype, device, trains,
            "native",
        )  # fmt: skip
    peer_name = contestants[1]
    if not only or peer_name in only:
        peer = torchvision_detector(size, masks).to(device)
        listed = list(images.contiguous())
        works[peer_name] = work_of(
            peer, lambda: peer(listed, theirs if trains else None), dtype, device, trains, ""
        )
    return works


def our_detector(masks: bool) -> Detector:
    """Build the detector of the recipe detect_small_data."""
    encoder = create_model("convnextv2_atto", num_classes=None, drop_path_rate=0.1)
    return build_detector(
        read_recipe({}, config="detect_small_data")[0], encoder, CLASSES, masks=masks
    )


def torchvision_detector(size: int, masks: bool) -> nn.Module:
    """Build torchvision's small Faster R-CNN, or its Mask R-CNN, for images of one size."""
    from torchvision.models import detection as peers

    build: Callable[..., nn.Module] = (
        peers.maskrcnn_resnet50_fpn_v2 if masks else peers.fasterrcnn_mobilenet_v3_large_320_fpn
    )
    return build(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=size, max_size=size
    )


def objects(
    size: int, device: torch.device, *, masks: bool
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Draw the objects of a batch, as torchvision takes them and as we do."""
    generator = torch.Generator().manual_seed(0)
    theirs, ours = [], []
    for _ in range(BATCH):
        sides = torch.randint(size // 16, size // 3, (OBJECTS, 2), generator=generator)
        corners = (torch.rand(OBJECTS, 2, generator=generator) * (size - sides)).long()
        boxes = torch.cat([corners, corners + sides], 1)
        labels = torch.randint(CLASSES, (OBJECTS,), generator=generator)
        # torchvision counts the background as class 0.
        their = {"boxes": boxes.float().to(device), "labels": (labels + 1).to(device)}
        our: dict[str, Tensor] = {"boxes": their["boxes"], "labels": labels.to(device)}
        if masks:
            whole = torch.zeros(OBJECTS, size, size, dtype=torch.uint8)
            for mask, (left, top, right, bottom) in zip(whole, boxes.tolist(), strict=True):
                mask[top:bottom, left:right] = 1
            their["masks"] = whole.to(device)
            our |= cut(whole, boxes, device)
        theirs.append(their)
        ours.append(our)
    return theirs, ours


def cut(whole: Tensor, boxes: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Cut masks to their boxes and two pixels around them, see `mask_crops.resample`."""
    pixels, places, begin = [], [], 0
    size = whole.shape[-1]
    for mask, (left, top, right, bottom) in zip(whole, boxes.tolist(), strict=True):
        x, y = max(0, left - 2), max(0, top - 2)
        part = mask[y : min(size, bottom + 2), x : min(size, right + 2)]
        pixels.append(part.flatten())
        places.append([begin, y, x, *part.shape])
        begin += part.numel()
    return {"mask_pixels": torch.cat(pixels).to(device), "mask_places": torch.tensor(places)}


def segmentation(
    *,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    trains: bool,
    only: Sequence[str] = (),
) -> dict[str, Work]:
    """Make the steps, or the answers, of the segmentors that are named."""
    images = random_images(BATCH, device, size)
    targets = torch.randint(CLASSES, (BATCH, size, size)).to(device)
    works: dict[str, Work] = {}
    if not only or OURS in only:
        model = our_segmentor()
        model = model.to(device) if trains else lay_out(model, device)

        def our_loss() -> Tensor:
            logits, auxiliary = model(images)
            return segmentation_loss(logits, auxiliary, targets)

        run = our_loss if trains else partial(classes, model, images)
        works[OURS] = work_of(model, run, dtype, device, trains, "native")
    if not only or PIXELS[1] in only:
        import segmentation_models_pytorch as smp

        # On a CPU, its training step takes 1.4 times as long in the layout "channels last".
        first = trains and device.type == "cpu"
        layout = torch.contiguous_format if first else torch.channels_last
        peer = smp.UPerNet("resnet18", encoder_weights=None, classes=CLASSES)
        peer, given = peer.to(device, memory_format=layout), images.contiguous(memory_format=layout)
        # Its logits have the size of the images.
        their = (lambda: nn.functional.cross_entropy(peer(given), targets)) if trains else (
            lambda: peer(given).argmax(1)
        )  # fmt: skip
        works[PIXELS[1]] = work_of(peer, their, dtype, device, trains, "")
    return works


def our_segmentor() -> Segmentor:
    """Build the segmentor of the recipe segment_small_data."""
    encoder = create_model("convnextv2_atto", num_classes=None, drop_path_rate=0.1)
    return build_segmentor(read_recipe({}, config="segment_small_data")[0], encoder, CLASSES)


def classes(model: Segmentor, images: Tensor) -> Tensor:
    """Find the class of every pixel of the images."""
    size = (images.shape[-2], images.shape[-1])
    maps = [LogitMap(each, each.shape[-2:]) for each in model(images).float()]
    return torch.stack([classes_of([each], size) for each in maps])


def work_of(
    model: nn.Module,
    run: Callable[[], Any],
    dtype: torch.dtype,
    device: torch.device,
    trains: bool,
    kernels: str,
) -> Work:
    """Make a whole step of training, or an answer."""
    model.train(trains)
    if trains:

        def loss_of() -> Tensor:
            found = run()
            return sum(found.values()) if isinstance(found, dict) else found

        return step(model, loss_of, dtype, kernels, device)

    @torch.inference_mode()
    def answer() -> None:
        choose(kernels, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            run()

    return answer
