"""The first training images as a picture, exactly as the network would get them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from convnextv2.data.randomness import generator_for
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.gallery import contact_sheet
from convnextv2.files import replacing
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.gradients import seed_from
from convnextv2.training.task import Batches

MAX_SHOWN = 32
_MAX_LETTERS = 36
"""The largest number of characters in the line below a picture."""
_MIN_SHARE = 0.005
"""Smaller shares of a class are not named."""


class Shown(NamedTuple):
    """One training image.

    Attributes:
        pixels: uint8 (3, H, W), with what the network has to learn drawn over it.
        title: Its classes.
    """

    pixels: Tensor
    title: str


class Previewed(Protocol):
    """A task that can show its batches."""

    @property
    def recipe(self) -> Recipe:
        """The recipe, in which `batch_size` and `accumulate` are numbers."""

    @property
    def loader(self) -> Batches:
        """The training batches of this rank."""

    def size(self, batch: Any) -> int:
        """Count the images in a batch."""

    def shown(self, batch: Any, generator: torch.Generator) -> list[Shown]:
        """Prepare a batch as its loss does, and return the images.

        Args:
            batch: A batch of the loader.
            generator: The generator that the loss would get.
        """


def write_first_images(task: Previewed, place: Place, path: Path) -> int:
    """Write the first training images as a contact sheet.

    Batches, random numbers and mixtures are those of the first steps of a run with this recipe that
    starts from its first epoch.

    Args:
        task: The task that would be learned.
        place: This rank, whose images are shown.
        path: The PNG file.

    Returns:
        The number of images.

    Raises:
        DataError: No image can be read.
    """
    shown = list(islice(_first_images(task, place), MAX_SHOWN))
    if not shown:
        raise DataError(
            f"none of the {len(task.loader.source):,} training images can be read, so there is "
            "none to show. Check the files: convnextv2 audit DATA lists what is wrong with them."
        )
    titles = [_fitted(each.title) for each in shown]
    with replacing(path, makes_folder=True) as temporary:
        contact_sheet([each.pixels for each in shown], titles).save(temporary, "png")
    return len(shown)


def _first_images(task: Previewed, place: Place) -> Iterator[Shown]:
    batches = iter(task.loader.batches(0))
    step = 0
    while group := list(islice(batches, task.recipe.accumulate)):
        generator = generator_for(task.recipe.seed, "step", step, place.rank)
        seed_from(generator)
        for batch in group:
            if task.size(batch):
                yield from task.shown(batch, generator)
        step += 1


def describe_targets(
    targets: Tensor, class_names: Sequence[str], *, multi_label: bool
) -> list[str]:
    """Describe the classes of images in words, with the shares of mixed images.

    Args:
        targets: int64 (N,), or shares (N, K), of which negative ones are unknown.
        class_names: The classes.
        multi_label: Whether an image may have any number of classes.
    """
    if targets.dim() == 1:
        return [class_names[k] if k >= 0 else "no label" for k in targets.tolist()]
    lines = []
    for shares in targets.tolist():
        named = [(share, class_names[k]) for k, share in enumerate(shares) if share > _MIN_SHARE]
        named.sort(key=lambda each: -each[0])
        words = [name if share > 1 - _MIN_SHARE else f"{name} {share:.0%}" for share, name in named]
        lines.append((", " if multi_label else " + ").join(words) or "none")
    return lines


def beside(first: Tensor, second: Tensor) -> Tensor:
    """Put two pictures, uint8 (3, H, W), side by side."""
    gap = torch.full((first.shape[0], first.shape[1], 2), 255, dtype=torch.uint8)
    return torch.cat([first, gap, second], 2)


def from_picture(picture: Image.Image) -> Tensor:
    """Return the pixels of a picture, uint8 (3, H, W)."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    pixels: Tensor = pil_to_tensor(picture.convert("RGB"))
    return pixels


def _fitted(title: str) -> str:
    text = title.encode("ascii", "replace").decode()
    return text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 3]}..."
