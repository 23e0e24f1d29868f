"""Three sets of images for dense tasks: a tenth decides, and test is looked at once.

Each set gets two folders: `full`, whose split train has all training images, and `tuning`, whose
train has nine tenths of them. The split val of both is the other tenth, so that nothing that a
training prints comes from the test images.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studies import link_image


@dataclass(frozen=True)
class DenseSet:
    """A set of images.

    Attributes:
        task: What is learned.
        test: The split of the source that is looked at once. Its train is what is trained on.
        size: The image size in pixels.
        batch: Images in a step.
        jitter: The smallest and the largest random factor on the size of images.
        finest_stride: That of the feature pyramid, see the recipe detect_small_data.
        anchor_scale: Sides of anchors, in strides.
    """

    task: Literal["boxes", "masks", "pixels"]
    test: str
    size: int
    batch: int
    jitter: tuple[float, float]
    finest_stride: int = 8
    anchor_scale: float = 4.0

    @property
    def score(self) -> str:
        """The figure that chooses the learning rate."""
        return "miou" if self.task == "pixels" else "ap"


SETS = {
    "bccd": DenseSet("boxes", "test", 320, 4, (0.7, 1.5)),
    # Nuclei are small, so both contestants get a level of stride 4, and anchors from 8 px on.
    "nuclei": DenseSet("masks", "val", 320, 4, (0.7, 1.5), finest_stride=4, anchor_scale=2.0),
    "clothing_parsing": DenseSet("pixels", "val", 192, 8, (0.75, 1.75)),
}


def lay_out(name: str, data: Path, out: Path, most: int | None) -> Path:
    """Link the images of a set, unless that is done.

    Args:
        name: The name of the set.
        data: The folder of the source.
        out: Where `full` and `tuning` are made.
        most: The number of images that are taken of each split; None for all.
    """
    if not out.exists():
        making = out.with_name(f"{out.name}-making")
        shutil.rmtree(making, ignore_errors=True)
        (_lay_out_maps if SETS[name].task == "pixels" else _lay_out_objects)(
            data, making, SETS[name].test, most
        )
        making.rename(out)
    return out


def _parts(training: Sequence[Any], test: Sequence[Any]) -> dict[str, dict[str, Sequence[Any]]]:
    """Deal training and test images to the splits of the two folders."""
    tenth = [each for i, each in enumerate(training) if i % 10 == 5]
    others = [each for i, each in enumerate(training) if i % 10 != 5]
    return {
        "full": {"train": training, "val": tenth, "test": test},
        "tuning": {"train": others, "val": tenth},
    }


def _lay_out_objects(data: Path, out: Path, test: str, most: int | None) -> None:
    found = {
        split: json.loads((data / f"instances_{split}.json").read_text())
        for split in ("train", test)
    }
    listed = [
        sorted(found[split]["images"], key=lambda each: each["file_name"])[:most]
        for split in ("train", test)
    ]
    for part, splits in _parts(*listed).items():
        for split, images in splits.items():
            source = found[test if split == "test" else "train"]
            kept = {each["id"] for each in images}
            content = {
                "images": [{**each, "file_name": Path(each["file_name"]).name} for each in images],
                "annotations": [a for a in source["annotations"] if a["image_id"] in kept],
                "categories": source["categories"],
            }
            (out / part / "images").mkdir(parents=True, exist_ok=True)
            (out / part / f"instances_{split}.json").write_text(json.dumps(content))
            for each in images:
                path = data / each["file_name"]
                path = path if path.exists() else data / "images" / each["file_name"]
                link_image(path, out / part / "images" / path.name)
                if split == "train":
                    link_image(path, out / part / "photographs" / path.name)


def _lay_out_maps(data: Path, out: Path, test: str, most: int | None) -> None:
    listed = [sorted((data / "images" / split).iterdir())[:most] for split in ("train", test)]
    for part, splits in _parts(*listed).items():
        for split, images in splits.items():
            for path in images:
                link_image(path, out / part / "images" / split / path.name)
                mask = data / "annotations" / path.parent.name / f"{path.stem}.png"
                link_image(mask, out / part / "annotations" / split / mask.name)
                if split == "train":
                    link_image(path, out / part / "photographs" / path.name)
        shutil.copy(data / "classes.csv", out / part)


def images_of(folder: Path, split: str, task: str) -> list[Path]:
    """List the images of a split, in the order of their names."""
    if task == "pixels":
        return sorted((folder / "images" / split).iterdir())
    found = json.loads((folder / f"instances_{split}.json").read_text())
    return sorted(folder / "images" / each["file_name"] for each in found["images"])


def count_classes(folder: Path) -> int:
    """Count the classes of a set with the class of every pixel."""
    return len((folder / "classes.csv").read_text().split()) - 1
