"""Sources, which give access to images and their targets by index."""

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
    """Images by index. A source holds no open file, so it can be copied to worker processes.

    Attributes:
        names: The names of the images in messages and predictions. The name of a file is its path.
            A `Stored` sequence also reads the images.
        targets: See `Targets`; None without labels.
        class_names: The name of each class.
        arrays: The pixels of a data set in memory, uint8 (N, H, W) or (N, H, W, 3); None if `names`
            are files.
        max_pixels: The largest image that is decoded, in pixels.
        notes: Messages to the user, which are shown once.
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
        """True if an image may have any number of labels."""
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
            StorageError: The storage of the file is out of reach.
            DataError: The image cannot be read. The message names it.
        """
        image = self.picture(index, channels, value_range)
        return image.decode() if isinstance(image, Picture) else image

    def picture(
        self, index: int, channels: int = 3, value_range: tuple[float, float] | None = None
    ) -> Tensor | Picture:
        """Return an image as `pixels` does, but not decoded yet if it is a file."""
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
        """Return 3, or the number of bands of the first readable image if it is not RGB or grey."""
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
        """Return whether an image cannot be read because its storage is out of reach."""
        if self.arrays is not None:
            return False
        try:
            read_file(self.names, index)
        except StorageError:
            return True
        except DataError:  # the file itself is at fault, so waiting would not help
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

    def spread(self, count: int) -> Source:
        """Return at most `count` images, evenly spaced over all of them."""
        if len(self) <= count:
            return self
        return self.subset(np.linspace(0, len(self) - 1, count).round().astype(np.int64))


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
