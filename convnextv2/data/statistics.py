"""Statistics of the channels of images that a recipe needs: mean, standard deviation and range.

The pixels for the network have 256 levels. There is one bin for each level, so mean and standard
deviation are exact. For files with more than 8 bits, there is also one bin for each 16-bit integer,
so the percentiles of such files are exact too. All other values are counted in bins whose width is
at most 0.8 % of the value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convnextv2.data.decode.arrays import from_array
from convnextv2.data.decode.values import is_no_data
from convnextv2.data.source import Source
from convnextv2.errors import ChannelsError, DataError, MissingPackageError, StorageError

LOW, HIGH = 0.001, 0.999
"""The shares of the values that lie below the two ends of the proposed range."""

_LEVELS = 256
_LOWEST, _HIGHEST = -32_768, 65_535  # 16-bit integers, signed or unsigned
_WHOLE = _HIGHEST - _LOWEST + 1
_COARSE = 1 << 16
_CHUNK = 64

Counts = NDArray[np.int64]


@dataclass(eq=False)
class Tally:
    """The histograms of some images. The tallies of two sets of images can be added.

    Attributes:
        channels: The number of channels, C.
        images: The number of images that were counted.
        deep: The number of these images that have more than 8 bits.
        is_mixed: Whether the levels of a deep image do not follow from the counts of its values.
        bands: Number of bands -> number of files, including those with too many or too few bands.
        kinds: Type of the values -> number of images.
        sizes: Height and width of each image, in pixels.
        wrong_bands: Messages about files with another number of bands than the network takes.
        unreadable: Messages about files that cannot be read.
        levels: int64 (C, 256), the number of pixels of each level.
        whole: int64 (C, 98304), the counts of 16-bit integers, from -32768 on.
        coarse: int64 (C, 65536), the counts of other values, by the upper half of their bits as
            float32.
        empty: int64 (C,), the number of values that are NaN or the no-data value.
        infinite: int64 (C,), the number of infinite values.
        low: float64 (C,), the smallest finite value of each channel.
        high: float64 (C,), the largest finite value of each channel.
    """

    channels: int
    images: int = 0
    deep: int = 0
    is_mixed: bool = False
    bands: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    wrong_bands: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    levels: Counts = field(init=False)
    whole: Counts | None = None
    coarse: Counts | None = None
    empty: Counts = field(init=False)
    infinite: Counts = field(init=False)
    low: NDArray[np.float64] = field(init=False)
    high: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.levels = np.zeros((self.channels, _LEVELS), np.int64)
        self.empty, self.infinite = np.zeros((2, self.channels), np.int64)
        self.low, self.high = (np.full(self.channels, end) for end in (np.inf, -np.inf))

    def __iadd__(self, other: Tally) -> Tally:
        self.images += other.images
        self.deep += other.deep
        self.is_mixed |= other.is_mixed
        self.bands += other.bands
        self.kinds += other.kinds
        self.sizes += other.sizes
        self.wrong_bands += other.wrong_bands
        self.unreadable += other.unreadable
        self.levels += other.levels
        self.whole = _sum(self.whole, other.whole)
        self.coarse = _sum(self.coarse, other.coarse)
        self.empty += other.empty
        self.infinite += other.infinite
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return self

    def count_pixels(self, pixels: Tensor) -> None:
        """Count the levels of an image, uint8 (C, H, W)."""
        for c, band in enumerate(pixels.numpy()):
            self.levels[c] += np.bincount(band.reshape(-1), minlength=_LEVELS)

    def count_values(self, array: NDArray[Any], no_data: float | None) -> None:
        """Count the values of an image with more than 8 bits.

        Args:
            array: (H, W, bands), the values in the file.
            no_data: The value that stands for missing data; None if there is none.
        """
        bands = array.shape[2]
        if bands == 4 and self.channels == 3:
            bands = 3  # without transparency
        self.is_mixed |= bands not in (1, self.channels)
        for c in range(max(bands, self.channels)):
            self._count_band(min(c, self.channels - 1), array[..., min(c, bands - 1)], no_data)

    def _count_band(self, c: int, values: NDArray[Any], no_data: float | None) -> None:
        is_empty, is_infinite = is_no_data(values, no_data), np.isinf(values)
        self.empty[c] += int(is_empty.sum())
        self.infinite[c] += int(is_infinite.sum())
        counted = values[~(is_empty | is_infinite)]
        if not counted.size:
            return
        self.low[c] = min(self.low[c], float(counted.min()))
        self.high[c] = max(self.high[c], float(counted.max()))
        if counted.dtype.kind in "iu" and counted.dtype.itemsize <= 2:
            if self.whole is None:
                self.whole = np.zeros((self.channels, _WHOLE), np.int64)
            self.whole[c] += np.bincount(counted.astype(np.int64) - _LOWEST, minlength=_WHOLE)
        else:
            if self.coarse is None:
                self.coarse = np.zeros((self.channels, _COARSE), np.int64)
            self.coarse[c] += np.bincount(_bins(counted), minlength=_COARSE)

    def percentile(self, c: int, share: float) -> float:
        """Return the value that a given share of a channel's finite values does not exceed.

        Args:
            c: The index of the channel.
            share: The share, from 0 to 1.

        Returns:
            One of the values, or the middle of its bin, but never below the smallest or above the
            largest value. It is NaN if there are no values.
        """
        values, counts = [], []
        for histogram, of in (
            (self.whole, np.arange(_LOWEST, _HIGHEST + 1)),
            (self.coarse, _MIDDLES),
        ):
            if histogram is not None:
                there = np.flatnonzero(histogram[c])
                values.append(of[there].astype(np.float64))
                counts.append(histogram[c][there])
        if not values or not sum(map(len, values)):
            return math.nan
        joined, order = np.concatenate(values), np.argsort(np.concatenate(values))
        below = np.concatenate(counts)[order].cumsum()
        found = joined[order][np.searchsorted(below, share * below[-1] - 1e-9)]
        return float(np.clip(found, self.low[c], self.high[c]))


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of images.

    Attributes:
        tally: The counts.
        value_range: The range that was used to scale files with more than 8 bits. It is the given
            range, or one that is proposed from the percentiles; None if there are no such files.
        mean: The mean of the pixels of each channel, from 0 to 1. NaN and no data count as 0.
        std: The standard deviation of the pixels of each channel, on the same scale.
        low: The quantile LOW of the values of each channel; empty if no file has more than 8 bits.
        high: The quantile HIGH of the values of each channel; empty in the same case.
        is_exact: Whether the percentiles are exact.
    """

    tally: Tally
    value_range: tuple[float, float] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    is_exact: bool


def measure(
    source: Source,
    channels: int,
    *,
    value_range: tuple[float, float] | None = None,
    workers: int = 0,
) -> Statistics:
    """Measure images.

    Files that cannot be read, or that have another number of bands, are left out and counted.

    Each file is read once, with one exception: if a range is proposed, and values have more than 16
    bits or are converted to luma, the levels do not follow from the counts, and all files are read
    again.

    Args:
        source: The images.
        channels: The number of channels; see `open_picture`.
        value_range: The values that become black and white in files with more than 8 bits. If None,
            a range is proposed, and mean and standard deviation are computed with that range.
        workers: The number of worker processes; 0 to decode in this process.

    Returns:
        The statistics.

    Raises:
        DataError: No image can be read.
        MissingPackageError: A package for these files is missing.
    """
    tally = _count(source, channels, value_range, workers)
    if not tally.images:
        why = (tally.wrong_bands + tally.unreadable)[0]
        raise DataError(f"none of the {len(source)} images can be measured. The first: {why}")
    levels, scale = tally.levels, value_range
    if tally.deep and value_range is None:
        scale = _proposed(tally)
        if tally.coarse is None and not tally.is_mixed:
            levels = levels + _levels_of(tally, scale)
        else:
            levels = _count(source, channels, scale, workers).levels
    ends = [
        tuple(tally.percentile(c, share) for c in range(channels)) if tally.deep else ()
        for share in (LOW, HIGH)
    ]
    mean, std = zip(*map(_moments, levels), strict=True)
    used = scale if tally.deep else None
    return Statistics(tally, used, mean, std, ends[0], ends[1], tally.coarse is None)


def _proposed(tally: Tally) -> tuple[float, float]:
    """Propose a range from the quantiles of all channels. If they are equal, it is widened."""
    ends = [
        [
            value
            for c in range(tally.channels)
            if not math.isnan(value := tally.percentile(c, share))
        ]
        for share in (LOW, HIGH)
    ]
    if not ends[0]:
        return 0.0, 1.0
    low, high = (float(f"{value:.6g}") for value in (min(ends[0]), max(ends[1])))
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def _levels_of(tally: Tally, value_range: tuple[float, float]) -> Counts:
    """Compute the number of pixels of each level from the counts of 16-bit integers."""
    every = np.arange(_LOWEST, _HIGHEST + 1, dtype=np.int32)[None, :, None]
    level = from_array(every, 1, value_range, name="values").flatten().numpy()
    assert tally.whole is not None or tally.empty.any()
    whole = tally.whole if tally.whole is not None else np.zeros((tally.channels, _WHOLE), np.int64)
    found = np.zeros((tally.channels, _LEVELS), np.int64)
    for c in range(tally.channels):
        np.add.at(found[c], level, whole[c])
    found[:, 0] += tally.empty
    return found


def _moments(levels: Counts) -> tuple[float, float]:
    """Compute mean and standard deviation, from 0 to 1, from the counts of the levels.

    The sums are Python integers, so they are exact.
    """
    counts = [int(count) for count in levels]
    number = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    mean, variance = first / number, (number * second - first * first) / (number * number)
    return mean / 255, math.sqrt(variance) / 255


def _sum(one: Counts | None, other: Counts | None) -> Counts | None:
    return one if other is None else other if one is None else one + other


def _bins(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the bins of finite values. Bins are ordered by value.

    A bin is the upper half of the bits of a float32, changed so that the order of the bins is that
    of the values.
    """
    reach = np.finfo(np.float32).max
    bits = values.astype(np.float64).clip(-reach, reach).astype(np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> 16).astype(np.int64)


def _middles() -> NDArray[np.float64]:
    """Return the value in the middle of each bin."""
    ordered = (np.arange(_COARSE, dtype=np.uint32) << 16) | 0x8000
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    with np.errstate(invalid="ignore"):  # the outermost bins hold NaN
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


_MIDDLES = _middles()


def _count(
    source: Source, channels: int, value_range: tuple[float, float] | None, workers: int
) -> Tally:
    size = max(1, min(_CHUNK, math.ceil(len(source) / (4 * workers or 1))))
    chunks = [range(start, min(start + size, len(source))) for start in range(0, len(source), size)]
    tallies: DataLoader[Tally | MissingPackageError | StorageError] = DataLoader(
        _Chunks(source, channels, value_range, chunks),
        batch_size=None,
        num_workers=min(workers, len(chunks)),
    )
    total = Tally(channels)
    for tally in tallies:
        if isinstance(tally, MissingPackageError | StorageError):
            raise tally
        total += tally
    return total


class _Chunks(Dataset[Tally | MissingPackageError | StorageError]):
    """The tallies of chunks of images, so that few large histograms pass between processes."""

    def __init__(
        self,
        source: Source,
        channels: int,
        value_range: tuple[float, float] | None,
        chunks: Sequence[range],
    ) -> None:
        self.source, self.channels = source, channels
        self.value_range, self.chunks = value_range, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Tally | MissingPackageError | StorageError:
        tally = Tally(self.channels)
        for index in self.chunks[number]:
            try:
                self._add(tally, index)
            except ChannelsError as error:
                tally.bands[error.bands] += 1
                tally.wrong_bands.append(str(error))
            except (MissingPackageError, StorageError) as error:
                return error  # as a value, because an exception of a worker would lose its type
            except DataError as error:
                tally.unreadable.append(str(error))
        return tally

    def _add(self, tally: Tally, index: int) -> None:
        picture = self.source.picture(index, self.channels, self.value_range)
        one = Tally(self.channels)  # added only at the end, so that a truncated file counts nothing
        if isinstance(picture, Tensor):
            one.count_pixels(picture)
            bands, kind, size = len(picture), "uint8", (picture.shape[1], picture.shape[2])
        else:
            bands, size = picture.bands, (picture.height, picture.width)
            values = picture.values()
            kind = "uint8" if values is None else str(values.array.dtype.newbyteorder("="))
            if values is None:
                one.count_pixels(picture.decode())
            else:
                one.deep = 1
                one.count_values(values.array, values.no_data)
                if self.value_range is not None:
                    one.count_pixels(
                        from_array(
                            values.array,
                            self.channels,
                            self.value_range,
                            name=self.source.names[index],
                            no_data=values.no_data,
                        )
                    )
        one.images = 1
        one.bands[bands] += 1
        one.kinds[kind] += 1
        one.sizes.append(size)
        tally += one
