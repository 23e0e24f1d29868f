"""The pixel classifier: a segmentor ready to use, which gives a class to every pixel of an image.

Validation, predictions, certificates and the server all use it. Its memory is bounded: logits are
kept at the resolution of the network until the end. They are then enlarged to the image's own size
pixel by pixel in a kernel or, without it, in strips, so that a large photograph and many classes do
not fill the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnextv2.data.dense.map_transforms import whole_image
from convnextv2.data.transforms import normaliser
from convnextv2.device import autocast
from convnextv2.errors import DataError
from convnextv2.find import run_of
from convnextv2.kernels.choice import are_used_for
from convnextv2.kernels.enlarged import enlarged_classes
from convnextv2.model.upernet import Segmentor
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

STRIP_VALUES = 1 << 25
"""The largest number of enlarged logits in a strip, unless a single row has more."""
_WINDOWS_AT_ONCE = 4


class LogitMap(NamedTuple):
    """Logits of an image at the resolution of the network.

    Attributes:
        logits: float32 (K, h, w).
        extent: The number of rows and columns that the image covers, which need not be whole. The
            rest is padding.
    """

    logits: Tensor
    extent: tuple[float, float]


@dataclass(frozen=True)
class Windows:
    """The views of an image that a network is run on: whole or in windows, resized, mirrored.

    Attributes:
        slide: Whether the network sees overlapping windows of the image size, not whole images.
        scales: Factors on the size of the image. The probabilities of all are averaged.
        flip: Whether the network also sees a mirrored copy of each view.
    """

    slide: bool = False
    scales: Sequence[float] = (1.0,)
    flip: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Windows:
        """Take the recipe's settings."""
        return cls(recipe.slide, recipe.test_scales, recipe.test_flip)


class PixelClassifier:
    """Gives every pixel of an image a class. Threads may share it.

    Args:
        logits: Maps normalised images (N, C, H, W), whose sides are multiples of `stride`, to
            float32 logits (N, K, h, w).
        preprocessing: The preprocessing of images. A resized image covers its `image_size`, which
            is also the size of the windows.
        stride: The total stride of the network.
        class_names: The name of each class.
        device: The device on which images are normalised and logits enlarged.
        windows: The views of an image that the network is run on; None for the whole image.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        *,
        stride: int,
        class_names: Sequence[str],
        device: torch.device,
        windows: Windows | None = None,
    ) -> None:
        self.preprocessing, self.class_names = preprocessing, list(class_names)
        self.device, self.windows = device, windows or Windows()
        self._logits, self._stride = logits, stride
        self._normalise = normaliser(preprocessing)
        self._lock = threading.Lock()

    def prepare(self, pixels: Tensor, factor: float = 1.0) -> Tensor:
        """Resize an image so that it covers the image size times a factor.

        Args:
            pixels: uint8 (C, H, W).
            factor: The factor.

        Returns:
            uint8 (C, h, w).
        """
        return whole_image(pixels, self.preprocessing, factor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Find the class of every pixel.

        Args:
            pixels: uint8 (C, H, W) of any size.

        Returns:
            int16 (H, W) on the CPU, class indices.

        Raises:
            DataError: These are no such pixels.
        """
        _check_pixels(pixels, self.preprocessing.channels)
        size = pixels.shape[-2], pixels.shape[-1]
        with self._lock, torch.inference_mode():
            maps = [
                self._turned(self.prepare(pixels, factor), flip)
                for factor in self.windows.scales
                for flip in ((False, True) if self.windows.flip else (False,))
            ]
            return classes_of(maps, size)

    def classify_prepared(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Find the class of every pixel of an image that `prepare` has resized at a factor of 1.

        This saves a resize if the only scale is 1; otherwise the image itself is needed.

        Args:
            pixels: uint8 (C, h, w).
            size: Height and width of the image itself.

        Returns:
            int16 (*size) on the CPU, class indices.
        """
        with self._lock, torch.inference_mode():
            maps = [
                self._turned(pixels, flip)
                for flip in ((False, True) if self.windows.flip else (False,))
            ]
            return classes_of(maps, size)

    def _turned(self, pixels: Tensor, flip: bool) -> LogitMap:
        images = self._normalise((pixels.flip(-1) if flip else pixels)[None].to(self.device))
        found = self._slid(images) if self.windows.slide else self._whole(images)
        if not flip:
            return found
        # The padding is at the right of the mirrored image, so it is cut off before mirroring back.
        height, width = images.shape[-2:]
        kept = _cut(found, (height, width))
        return LogitMap(kept.flip(-1), (float(height), float(width)))

    def _whole(self, images: Tensor) -> LogitMap:
        """Run the network on a whole image (1, C, H, W), which is padded with the mean colour."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self._stride, 0, -height % self._stride))
        logits = self._logits(padded)[0].float()
        scale = (logits.shape[-2] / padded.shape[-2], logits.shape[-1] / padded.shape[-1])
        return LogitMap(logits, (height * scale[0], width * scale[1]))

    def _slid(self, images: Tensor) -> LogitMap:
        """Run the network on overlapping windows, and average their logits."""
        height, width = images.shape[-2:]
        side = self.preprocessing.image_size
        places = list(window_corners((height, width), side))
        if len(places) == 1:
            return self._whole(images)
        total = images.new_zeros(len(self.class_names), height, width, dtype=torch.float32)
        count = images.new_zeros(1, height, width, dtype=torch.float32)
        window = min(side[0], height), min(side[1], width)
        for start in range(0, len(places), _WINDOWS_AT_ONCE):
            chunk = places[start : start + _WINDOWS_AT_ONCE]
            cut = torch.cat([images[..., y : y + window[0], x : x + window[1]] for y, x in chunk])
            padded = F.pad(cut, (0, -window[1] % self._stride, 0, -window[0] % self._stride))
            logits = F.interpolate(self._logits(padded).float(), padded.shape[-2:], mode="bilinear")
            for (y, x), found in zip(chunk, logits, strict=True):
                total[:, y : y + window[0], x : x + window[1]] += found[:, : window[0], : window[1]]
                count[:, y : y + window[0], x : x + window[1]] += 1
        return LogitMap(total / count, (float(height), float(width)))


def shares_of(classes: Tensor, num_classes: int) -> list[tuple[int, float]]:
    """Return the classes that occur in a map, with their shares of the pixels.

    Args:
        classes: int16 (H, W), class indices.
        num_classes: The number of classes.

    Returns:
        Index and share, from 0 to 1, of each class that occurs, the largest share first.
    """
    counts = torch.bincount(classes.flatten().long(), minlength=num_classes)
    order = counts.argsort(descending=True, stable=True).tolist()
    return [(k, int(counts[k]) / classes.numel()) for k in order if counts[k]]


def window_corners(size: tuple[int, int], window: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield top and left of the windows that cover an image.

    They move by two thirds of their size, rounded down. The last ones of a row or column are moved
    back into the image. Source: the official segmentation configs (512 and 341, 640 and 426).

    Args:
        size: Height and width of the image.
        window: Height and width of a window.
    """
    for top in _starts(size[0], window[0]):
        for left in _starts(size[1], window[1]):
            yield top, left


def _starts(side: int, window: int) -> list[int]:
    step = max(1, 2 * window // 3)
    count = max(0, side - window + step - 1) // step + 1
    return [max(0, min(i * step, side - window)) for i in range(count)]


def classes_of(maps: Sequence[LogitMap], size: tuple[int, int]) -> Tensor:
    """Find the most probable class of every pixel.

    Args:
        maps: Logits of the same image in one or several versions, whose probabilities are averaged.
        size: Height and width of the image.

    Returns:
        int16 (*size) on the CPU.
    """
    classes, first = len(maps[0].logits), maps[0].logits
    if len(maps) == 1 and first.device.type == "cpu" and are_used_for(first):
        return enlarged_classes(first.float(), maps[0].extent, size)
    rows = max(1, STRIP_VALUES // (classes * size[1]))
    strips = []
    widened = [_along_width(each, size[1]) for each in maps] if rows >= size[0] else None
    for start in range(0, size[0], rows):
        end = min(size[0], start + rows)
        total: Tensor | None = None
        for i, each in enumerate(maps):
            wide = widened[i] if widened else None
            strip = _strip(each, size, start, end, wide)
            if len(maps) > 1:
                strip = strip.softmax(0)
            total = strip if total is None else total + strip
        assert total is not None
        strips.append(total.argmax(0).to(torch.int16).cpu())
    return torch.cat(strips)


def _strip(
    found: LogitMap, size: tuple[int, int], start: int, end: int, wide: Tensor | None
) -> Tensor:
    """Enlarge rows of logits bilinearly, with the centres of pixels aligned: (K, rows, width)."""
    low, high, share = _neighbours(
        start, end, size[0], found.extent[0], found.logits.shape[-2], found.logits.device
    )
    if wide is None:
        first = int(low[0])
        part = found.logits[:, first : int(high[-1]) + 1]
        wide, low, high = (
            _along_width(LogitMap(part, found.extent), size[1]),
            low - first,
            high - first,
        )
    share = share[:, None]
    return wide[:, low] * (1 - share) + wide[:, high] * share


def _along_width(found: LogitMap, width: int) -> Tensor:
    low, high, share = _neighbours(
        0, width, width, found.extent[1], found.logits.shape[-1], found.logits.device
    )
    return found.logits[..., low] * (1 - share) + found.logits[..., high] * share


def _neighbours(
    start: int, end: int, target: int, extent: float, length: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two positions between which each target position lies, and the second's share."""
    centres = torch.arange(start, end, device=device, dtype=torch.float32) + 0.5
    at = (centres * (extent / target) - 0.5).clamp(min=0.0)
    low = at.floor().long().clamp(max=length - 1)
    return low, (low + 1).clamp(max=length - 1), (at - low).clamp(max=1.0)


def _cut(found: LogitMap, size: tuple[int, int]) -> Tensor:
    """Enlarge logits to the size of the resized image, without its padding: (K, *size)."""
    return _strip(found, size, 0, size[0], None)


def build_pixel_classifier(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    class_names: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    windows: Windows | None = None,
) -> PixelClassifier:
    """Make a pixel classifier of a network in evaluation mode.

    Args:
        model: A `Segmentor`, on its device.
        preprocessing: The preprocessing of its images.
        class_names: The name of each class.
        device: The device on which the network computes.
        dtype: The precision of the forward pass.
        windows: The views of an image that the network is run on; None for the whole image.
    """
    assert isinstance(model, Segmentor)

    def logits(images: Tensor) -> Tensor:
        with autocast(device, dtype):
            found: Tensor = model(images)
        return found.float()

    return PixelClassifier(
        logits, preprocessing, stride=model.encoder.total_stride, class_names=class_names,
        device=device, windows=windows,
    )  # fmt: skip


def own_recipe(weights: Path) -> Recipe | None:
    """Return the recipe of the run that a segmentor's weights belong to; None if there is none."""
    run = run_of(weights)
    recipe = None if run is None else run.recipe
    return recipe if recipe is not None and recipe.task == "segmentation" else None


def _check_pixels(pixels: object, channels: int) -> None:
    """Raise DataError unless this is uint8 (channels, H, W)."""
    shape = tuple(getattr(pixels, "shape", ()))
    if (
        not isinstance(pixels, Tensor)
        or pixels.dtype != torch.uint8
        or len(shape) != 3
        or shape[0] != channels
        or 0 in shape
    ):
        dtype = str(getattr(pixels, "dtype", "")).removeprefix("torch.")
        found = f"{type(pixels).__name__} {f'of {dtype} {shape}' if dtype else ''}".strip()
        raise DataError(
            f"pixels: {found}. Expected a tensor of uint8 ({channels}, H, W), with values from 0 "
            "to 255."
        )
