"""The files that a segmentor's predictions are written to."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from convnextv2.errors import RecipeError
from convnextv2.evaluation.overlay import index_picture, overlay
from convnextv2.files import UniqueNames, reason_of, replacing


class SegmentationFiles:
    """Writes two pictures for each image: a coloured overlay, and class indices for programs.

    Args:
        folder: The folder. `overlay/` and `index/` are made in it.
        class_names: The names of the classes. `classes.csv` lists them with their indices.

    Raises:
        RecipeError: The folder cannot be written.
    """

    def __init__(self, folder: Path, class_names: list[str]) -> None:
        self._folder, self._count = folder, len(class_names)
        self._names = UniqueNames(".png")
        try:
            for name in ("overlay", "index"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            with replacing(folder / "classes.csv") as temporary:
                lines = [f"{i},{_field(name)}\n" for i, name in enumerate(class_names)]
                temporary.write_text("id,name\n" + "".join(lines), encoding="utf-8")
        except OSError as error:
            raise RecipeError(
                f"out = {folder}: cannot be written ({reason_of(error)}). Expected a folder."
            ) from None

    def write(self, image: str, pixels: Tensor, classes: Tensor) -> dict[str, str]:
        """Write the pictures of one image.

        Args:
            image: The name of its file. If two images have the same name, the second gets a number.
            pixels: uint8 (C, H, W).
            classes: int16 (H, W), class indices.

        Returns:
            The paths: "overlay" and "index".
        """
        name = self._names.after(image)
        pictures: dict[str, Image.Image] = {
            "overlay": overlay(pixels, classes, self._count),
            "index": index_picture(classes, self._count),
        }
        paths = {}
        for kind, picture in pictures.items():
            path = self._folder / kind / name
            with replacing(path) as temporary:
                picture.save(temporary, "PNG")
            paths[kind] = str(path)
        return paths


def _field(name: str) -> str:
    """Write a field of CSV."""
    return '"' + name.replace('"', '""') + '"' if set(name) & set('",\n') else name
