"""Find objects in image files, and write what was found: pictures, and COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects_geometry import collate_objects
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.source import Source
from convnextv2.data.workers import resolve_workers
from convnextv2.errors import RecipeError
from convnextv2.evaluation.detection import FoundObjects
from convnextv2.evaluation.drawing import DrawnObject, colour_of, draw_objects, tag_of
from convnextv2.evaluation.gallery import to_picture
from convnextv2.files import UniqueNames, reason_of, replacing
from convnextv2.inference.detector import ObjectFinder, coco_results
from convnextv2.recipe.knobs import Recipe

OBJECTS_FILE = "objects.json"
"""The file with all objects, in the folder of the pictures."""


def find_in_images(
    finder: ObjectFinder,
    source: Source,
    recipe: Recipe,
    *,
    threshold: float,
    on_bad: Callable[[str, str], object],
) -> Iterator[tuple[dict[str, Any], FoundObjects]]:
    """Find objects in images.

    Args:
        finder: Finds them.
        source: The images.
        recipe: The recipe, with its workers and bad_images.
        threshold: Objects with a lower score are left out.
        on_bad: Called at the end with name and reason for each image that cannot be read.

    Yields:
        For each image, an answer as `verbs.answers.predicted.PredictedObjects` describes it, and
        what was found.
    """
    how = finder.transform.preprocessing
    loader = EvaluationLoader(
        source,
        finder.transform,
        batch_size=1,
        channels=how.channels,
        collate=collate_objects,
        workers=resolve_workers(recipe.workers)[0] if len(source) > 16 else 0,
        bad_images=recipe.bad_images,
    )
    for batch in loader:
        index = int(batch.indices[0])
        height, width = (int(side) for side in batch.targets[0])
        found = finder(batch.pixels[0], (height, width), index, threshold=threshold)
        objects = []
        for i, box in enumerate(found.boxes.tolist()):
            one: dict[str, Any] = {
                "class": finder.class_names[int(found.labels[i])],
                "score": float(found.scores[i]),
                "box": [round(value, 2) for value in box],
            }
            if found.masks is not None:
                one["mask"] = rle.to_json(found.masks[i])
            objects.append(one)
        name = source.names[index]
        yield {"image": name, "width": width, "height": height, "objects": objects}, found
    for name, why in loader.skipped.items():
        on_bad(name, why)


class ObjectFolder:
    """Writes pictures with objects, and one JSON file, into a folder.

    Args:
        folder: The folder, which is made if it does not exist.
        class_names: The names of the classes.
        names: The names of all images. The pictures are named after them, with numbers if two have
            the same name.

    Raises:
        RecipeError: Nothing can be written there.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], names: Sequence[str]) -> None:
        self.folder, self._class_names = folder, list(class_names)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(
                f"out = {folder}: cannot be made a folder ({reason_of(error)}). Give a folder for "
                "pictures and JSON."
            ) from None
        unique = UniqueNames(".png")
        self._files = [unique.after(name) for name in names]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, answer: Mapping[str, Any], found: FoundObjects, source: Source) -> None:
        """Draw one image, and remember its objects.

        Args:
            answer: The answer of `find_in_images`.
            found: What was found.
            source: The images.
        """
        picture = to_picture(source.pixels(found.index))
        size = answer["width"], answer["height"]
        if picture.size != size:  # it was enlarged
            picture = picture.resize(size)
        drawn = [
            DrawnObject(
                found.boxes[i],
                tag_of(self._class_names, int(found.labels[i]), found.scores[i]),
                colour_of(int(found.labels[i])),
                found.masks[i] if found.masks is not None else None,
            )
            for i in range(len(found.scores))
        ]
        path = self.folder / self._files[found.index]
        with replacing(path) as temporary:
            draw_objects(picture, drawn).save(temporary, format="PNG")
        number = len(self._images) + 1
        self._images.append(
            {"id": number, "file_name": answer["image"], "width": size[0], "height": size[1]}
        )
        ids = list(range(1, len(self._class_names) + 1))
        for i, record in enumerate(coco_results(found, number, ids)):
            area = record["bbox"][2] * record["bbox"][3]
            if found.masks is not None:
                area = rle.area_of(found.masks[i])
            record |= {"id": len(self._annotations) + 1, "area": area, "iscrowd": 0}
            self._annotations.append(record)

    def close(self) -> Path:
        """Write the JSON file: images, annotations with scores, and categories as COCO has them."""
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [
                {"id": i, "name": name} for i, name in enumerate(self._class_names, start=1)
            ],
        }
        path = self.folder / OBJECTS_FILE
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8", errors="surrogateescape")
        return path
