"""The entries of artifact.json that only segmentors and detectors have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from convnextv2.sizes import MAX_RESIZING

Colour = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
"""Red, green and blue."""

_CONFIG = ConfigDict(strict=True, extra="forbid", frozen=True)


class SegmentorCard(BaseModel):
    """The head of a segmentor, the views of an image that it is run on, and the colours of classes.

    Attributes:
        palette: A colour for each class.
        head: The arguments of `Segmentor` other than the encoder and the number of classes.
        slide: Whether the network is run on overlapping windows of the image size, not on whole
            images.
        test_scales: Factors on the size of the image. Probabilities are averaged over them.
        test_flip: Whether probabilities are averaged over mirrored images too.
        ignore_values: Values in the label maps of its data that stand for no class; None for the
            usual values of these data.
        reduce_zero_label: Whether 0 stands for no class in these maps, and the first class is 1.
    """

    model_config = _CONFIG

    palette: list[Colour]
    head: dict[str, Any]
    slide: bool
    test_scales: Annotated[
        list[Annotated[float, Field(gt=0, le=MAX_RESIZING)]], Field(min_length=1, max_length=64)
    ]
    test_flip: bool
    ignore_values: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] | None = None
    reduce_zero_label: bool = False


class DetectorCard(BaseModel):
    """The arguments of a detector's head, and the colours of its classes.

    An artifact of a detector has several graphs. The code that runs between them follows from these
    arguments.

    Attributes:
        palette: A colour for each class.
        head: The arguments of `Detector` other than the encoder and the number of classes.
        levels: The number of maps in which objects are searched for.
    """

    model_config = _CONFIG

    palette: list[Colour]
    head: dict[str, Any]
    levels: int = Field(ge=2, le=16)
