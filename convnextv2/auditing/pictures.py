"""Small pictures of what an audit found, for its page and its contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from convnextv2.auditing.findings import Finding
from convnextv2.auditing.scan import rgb_of
from convnextv2.data.decode import open_picture
from convnextv2.data.storage import read_file
from convnextv2.errors import DataError

SIDE_PX = 160
"""The longer side of a picture."""
_GAP_PX = 6
_LINE_PX = 14
_COLUMNS = 6
_GREY = (90, 90, 90)


class Pictures:
    """Opens small pictures, each once.

    Args:
        channels: See `open_picture`.
        value_range: See `open_picture`.
        max_pixels: The largest image that is decoded.
    """

    def __init__(
        self, channels: int, value_range: tuple[float, float] | None, max_pixels: int
    ) -> None:
        self._channels, self._value_range, self._max = channels, value_range, max_pixels
        self._known: dict[str, Image.Image | None] = {}

    def open(self, path: str) -> Image.Image | None:
        """Return a small picture of an image; None if it cannot be read."""
        if path not in self._known:
            self._known[path] = self._open(path)
        return self._known[path]

    def of(self, finding: Finding) -> Image.Image | None:
        """Return a picture of a finding. Copies are shown side by side."""
        first = self.open(finding.path)
        if not finding.other:
            return first
        second = self.open(finding.other)
        if first is None or second is None:
            return first or second
        canvas = Image.new("RGB", (2 * SIDE_PX + _GAP_PX, SIDE_PX), "white")
        for place, picture in enumerate((first, second)):
            left = place * (SIDE_PX + _GAP_PX) + (SIDE_PX - picture.width) // 2
            canvas.paste(picture, (left, (SIDE_PX - picture.height) // 2))
        return canvas

    def _open(self, path: str) -> Image.Image | None:
        try:
            pixels = open_picture(
                read_file([path], 0),
                name=path,
                channels=self._channels,
                max_pixels=self._max,
                value_range=self._value_range,
            ).decode()
        except DataError:
            return None
        picture = rgb_of(pixels.permute(1, 2, 0).contiguous().numpy())
        factor = SIDE_PX / max(picture.size)
        size = [max(1, round(side * factor)) for side in picture.size]
        smooth = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
        return picture.resize((size[0], size[1]), smooth)


def contact_sheet(pictures: Sequence[tuple[Image.Image, Sequence[str]]]) -> Image.Image:
    """Lay out pictures in rows, each with lines of text below it.

    Args:
        pictures: At least one, with its lines, which are cut to the width of the picture.
    """
    font = ImageFont.load_default(size=_LINE_PX - 3)
    width = max(max(picture.width for picture, _ in pictures), SIDE_PX)
    height = SIDE_PX + _LINE_PX * max(len(lines) for _, lines in pictures)
    columns = min(len(pictures), _COLUMNS * SIDE_PX // width or 1)
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new(
        "RGB",
        (columns * (width + _GAP_PX) + _GAP_PX, rows * (height + _GAP_PX) + _GAP_PX),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    for number, (picture, lines) in enumerate(pictures):
        row, column = divmod(number, columns)
        left = _GAP_PX + column * (width + _GAP_PX)
        top = _GAP_PX + row * (height + _GAP_PX)
        middle = left + (width - picture.width) // 2
        canvas.paste(picture, (middle, top + (SIDE_PX - picture.height) // 2))
        for line, text in enumerate(lines):
            at = (left, top + SIDE_PX + line * _LINE_PX)
            draw.text(at, _fitted(text, width, font), fill=_GREY, font=font)
    return canvas


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a text at its start, which names the folders, until it fits."""
    text = text.encode("ascii", "replace").decode()
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"...{text}") > width:
        text = text[1:]
    return f"...{text}"


def lines_of(finding: Finding) -> list[str]:
    """Describe a finding in up to three short lines."""
    name = "/".join(Path(finding.path).parts[-2:])
    if finding.other:
        return [name, "/".join(Path(finding.other).parts[-2:]), finding.detail]
    if finding.suggested:
        return [name, f"{finding.label}: {finding.suggested}?"]
    return [name, finding.detail]
