"""A source: images by index, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convnextv2.data.decode import Picture, open_picture
from convnextv2.data.path_list import PathList
from convnextv2.data.storage import Stored, read_file
from convnextv2.errors import ChannelsError, DataError, StorageError

MAX_PIXELS = 178_956_970

Targets = NDArray[np.integer[Any]]
"""int64 (N,), the class of each image; or int8 (N, K) if images may have several labels: 1 for a
label that the image has, 0 for one that it does not have, -1 for one that is not known."""


@dataclass(frozen=True, eq=False)
class Source:
    """Images by index. It holds no open file, so worker processes can have copies of it.

    Attributes:
        names: What messages and predictions call the images; the path if it is a file. A `Stored`
            list also reads the images.
        targets: See `Targets`; None without labels.
        class_names: One for each class.
        arrays: uint8 (N, H, W) or (N, H, W, 3) of sets that are held in memory; None where
            `names` are files.
        max_pixels: The largest image that is decoded.
        notes: Lines that the user should be told once.
    """

    names: Sequence[str]
    targets: Targets | None = None
    class_names: tuple[str, ...] = ()
    arrays: NDArray[np.uint8] | None = None
    max_pixels: int = MAX_PIXELS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have any number of labels."""
        return self.targets is not None and self.targets.ndim == 2

    def pixels(
        self, index: int, channels: int = 3, value_range: tuple[float, float] | None = None
    ) -> Tensor:
        """Read and decode an image.

        Args:
            index: The index of the image.
            channels: 3 for RGB, 1 for luma, any other number for the file's own bands.
            value_range: See `open_picture`.

        Returns:
            uint8 (channels, H, W).

        Raises:
            StorageError: Its file is out of reach, as those of others are.
            DataError: It cannot be read; the message has its name.
        """
        image = self.picture(index, channels, value_range)
        return image.decode() if isinstance(image, Picture) else image

    def picture(
        self, index: int, channels: int = 3, value_range: tuple[float, float] | None = None
    ) -> Tensor | Picture:
        """Return the same, not decoded yet if it is a file."""
        if self.arrays is not None:
            return _channels_first(self.arrays[index], channels)
        return open_picture(
            read_file(self.names, index),
            name=self.names[index],
            channels=channels,
            max_pixels=self.max_pixels,
            value_range=value_range,
        )

    def usual_channels(self) -> int:
        """Return 3, or the number of channels of the first readable image if that is not RGB."""
        for index in range(min(len(self), 100)):
            try:
                self.picture(index, 3)
            except ChannelsError as error:
                return error.bands
            except StorageError:
                raise
            except DataError:
                continue
            return 3
        return 3

    def is_out_of_reach(self, index: int) -> bool:
        """Say whether an image's file cannot be read because of what it lies on."""
        if self.arrays is not None:
            return False
        try:
            read_file(self.names, index)
        except StorageError:
            return True
        except DataError:  # a fault of its own, which is not waited for
            return False
        return False

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Source:
        """Return the images at these indices, in this order."""
        chosen = np.asarray(indices, np.int64)
        if isinstance(self.names, PathList | Stored):
            names: Sequence[str] = self.names.take(chosen)
        else:
            names = [self.names[i] for i in chosen.tolist()]
        return replace(
            self,
            names=names,
            targets=None if self.targets is None else self.targets[chosen],
            arrays=None if self.arrays is None else self.arrays[chosen],
        )

    def spread(self, most: int) -> Source:
        """Return at most this many of the images, spread evenly over all of them."""
        if len(self) <= most:
            return self
        return self.subset(np.linspace(0, len(self) - 1, most).round().astype(np.int64))


def _channels_first(array: NDArray[np.uint8], channels: int) -> Tensor:
    pixels = torch.from_numpy(np.array(array))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
    if len(pixels) == channels:
        return pixels.contiguous()
    if len(pixels) == 1:
        return pixels.expand(channels, -1, -1).contiguous()
    assert channels == 1, "the recipe checks that"
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (pixels * luma).sum(0, keepdim=True).round().to(torch.uint8)
