"""Make pictures for display from uint8 pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from convnextv2.model.tiles import Tiles

MIN_SIDE_PX = 96
"""Smaller images are enlarged by a whole factor, without smoothing, so that pixels are visible."""
GUTTER_PX = 4
GREY = 128
"""The level of a masked tile."""
NOTE_PX = 12
"""Font size of the note on the channels that are shown."""
GAP_PX = 28
"""Space between neighbouring groups of three."""


def as_rgb(pixels: Tensor) -> Tensor:
    """Return pixels (C, H, W) with three channels: the first three, or the first as grey."""
    return pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1).contiguous()


def to_picture(pixels: Tensor) -> Image.Image:
    """Make an RGB picture of one image, and enlarge it if it is small.

    Args:
        pixels: uint8 (C, H, W). See `as_rgb` for what is shown of them.
    """
    picture = Image.fromarray(as_rgb(pixels).permute(1, 2, 0).contiguous().cpu().numpy())
    factor = math.ceil(MIN_SIDE_PX / max(picture.size))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def shown_channels(channels: int) -> str:
    """Describe in a sentence how `to_picture` shows this many channels; empty for grey and RGB."""
    if channels in (1, 3):
        return ""
    if channels == 2:
        return "Shown is channel 1 of 2, as grey."
    return f"Channels 1 to 3 of {channels} are shown as RGB."


def reconstruction_gallery(
    pixels: Tensor, masked_pixels: Tensor, reconstruction: Tensor
) -> Image.Image:
    """Make one picture of N images: the input, the masked image and the reconstruction of each.

    If there are more than three images, each row holds two of them. If not all channels are shown,
    a line names those that are.

    Args:
        pixels: uint8 (N, C, H, W), the input.
        masked_pixels: uint8 (N, C, H, W), the input with masked tiles in grey.
        reconstruction: uint8 (N, C, H, W), the reconstruction with the visible tiles pasted back.
    """
    assert pixels.shape == masked_pixels.shape == reconstruction.shape
    groups = [
        [to_picture(image) for image in images]
        for images in zip(pixels, masked_pixels, reconstruction, strict=True)
    ]
    width, height = groups[0][0].size
    columns = 2 if len(groups) > 3 else 1
    rows = math.ceil(len(groups) / columns)
    group_width = 3 * width + 2 * GUTTER_PX
    font_size = max(12, width // 9)
    font, header = ImageFont.load_default(size=font_size), 2 * font_size
    if note := shown_channels(pixels.shape[1]):
        header += 2 * NOTE_PX
    canvas = Image.new(
        "RGB",
        (
            columns * group_width + (columns - 1) * GAP_PX,
            header + rows * height + (rows - 1) * GUTTER_PX,
        ),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    for i in range(columns):
        for j, title in enumerate(("input", "masked", "reconstruction")):
            left = i * (group_width + GAP_PX) + j * (width + GUTTER_PX)
            draw.text((left, font_size), title, fill=(90, 90, 90), font=font, anchor="lm")
    if note:
        small = ImageFont.load_default(size=NOTE_PX)
        draw.text((0, header - NOTE_PX), note, fill=(90, 90, 90), font=small, anchor="lm")
    for index, group in enumerate(groups):
        row, i = divmod(index, columns)
        for j, picture in enumerate(group):
            left = i * (group_width + GAP_PX) + j * (width + GUTTER_PX)
            canvas.paste(picture, (left, header + row * (height + GUTTER_PX)))
    return canvas


def contact_sheet(images: Sequence[Tensor], titles: Sequence[str]) -> Image.Image:
    """Lay out images in rows, each with a line of text below it.

    Args:
        images: uint8 (C, H, W), all of one size.
        titles: One for each image.
    """
    pictures = [to_picture(image) for image in images]
    font = ImageFont.load_default(size=NOTE_PX)
    longest = max(math.ceil(font.getlength(title)) for title in titles)
    width, height = max(pictures[0].width, longest) + GAP_PX // 2, pictures[0].height + 2 * NOTE_PX
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        row, column = divmod(i, columns)
        canvas.paste(picture, (column * width, row * height))
        middle = row * height + picture.height + NOTE_PX
        draw.text((column * width, middle), title, fill=(90, 90, 90), font=font, anchor="lm")
    return canvas


def grey_out(pixels: Tensor, visible: Tensor, grid: tuple[int, int], tile: int) -> Tensor:
    """Paint all masked tiles of pixels (N, C, H, W) grey."""
    canvas = Tiles(visible, grid).canvas(tile)
    as_last = pixels.permute(0, 2, 3, 1)
    return canvas.paint(canvas.pick(as_last), onto=torch.full_like(as_last, GREY)).permute(
        0, 3, 1, 2
    )


def to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo the normalisation: turn images (N, C, H, W) into uint8 pixels."""
    means, stds = (
        torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std)
    )
    return ((images * stds + means) * 255).round().clamp(0, 255).to(torch.uint8)
