"""Training images of a detector with the objects that it has to find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from convnextv2.data.dense.objects_geometry import ObjectTarget
from convnextv2.data.dense.rle import Rle, encode_within
from convnextv2.evaluation.drawing import DrawnObject, colour_of, draw_objects
from convnextv2.evaluation.gallery import as_rgb


def draw_target(pixels: Tensor, target: ObjectTarget, class_names: Sequence[str]) -> Image.Image:
    """Draw the objects of a training image over it.

    Args:
        pixels: uint8 (C, H, W).
        target: The objects.
        class_names: The classes.
    """
    height, width = pixels.shape[-2:]
    objects = []
    for k, label in enumerate(target["labels"].tolist()):
        mask = _mask(target, k, (height, width)) if "mask_places" in target else None
        box = target["boxes"][k].double().numpy()
        objects.append(DrawnObject(box, class_names[label], colour_of(label), mask))
    picture = Image.fromarray(as_rgb(pixels).permute(1, 2, 0).contiguous().numpy())
    return draw_objects(picture, objects)


def name_objects(target: ObjectTarget, class_names: Sequence[str]) -> str:
    """Say how many objects of each class there are."""
    counts = Counter(target["labels"].tolist())
    few = ", ".join(f"{n} {class_names[label]}" for label, n in counts.most_common(3))
    return few + (", ..." if len(counts) > 3 else "") or "no object"


def _mask(target: ObjectTarget, k: int, size: tuple[int, int]) -> Rle:
    """Return the mask of an object, which the target has cut to its surroundings."""
    start, top, left, height, width = target["mask_places"][k].tolist()
    part = target["mask_pixels"][start : start + height * width].reshape(height, width)
    return encode_within(part.numpy() > 0, (top, left), size)
