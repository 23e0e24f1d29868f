"""Pictures of discs and squares on noise, with their boxes and outlines, in every format."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("disc", "square")


@dataclass
class Drawn:
    """A picture and what is in it: (class, x0, y0, x1, y1, outline) for each object."""

    name: str
    size: tuple[int, int]  # height, width
    objects: list[tuple[int, int, int, int, int, list[float]]] = field(default_factory=list)


def draw_shapes(path: Path, seed: int, size: tuple[int, int] = (60, 80), most: int = 3) -> Drawn:
    """Draw a picture with up to `most` shapes that do not touch."""
    random = np.random.default_rng(seed)
    height, width = size
    pixels = random.integers(0, 70, (height, width, 3)).astype(np.uint8)
    drawn = Drawn(path.name, size)
    columns = random.permutation(most)[: int(random.integers(1, most + 1))]
    for column in columns.tolist():
        side = int(random.integers(12, width // most - 3))
        x0 = column * (width // most) + int(random.integers(0, width // most - side))
        y0 = int(random.integers(1, height - side - 1))
        kind = int(random.integers(0, 2))
        drawn.objects.append(put_shape(pixels, kind, x0, y0, side))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return drawn


def put_shape(
    pixels: np.ndarray, kind: int, x0: int, y0: int, side: int
) -> tuple[int, int, int, int, int, list[float]]:
    """Paint a shape, red discs and green squares, and return what was drawn."""
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    if kind:
        mask = (x >= x0) & (x < x0 + side) & (y >= y0) & (y < y0 + side)
        outline = [x0, y0, x0 + side, y0, x0 + side, y0 + side, x0, y0 + side]
    else:
        radius, cx, cy = side / 2, x0 + side / 2, y0 + side / 2
        mask = (x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 < radius**2
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        outline = np.stack([cx + radius * np.cos(turns), cy + radius * np.sin(turns)], 1).ravel()
        outline = outline.round(2).tolist()
    pixels[mask] = (60, 230, 60) if kind else (230, 60, 60)
    return kind, x0, y0, x0 + side, y0 + side, [float(value) for value in outline]


def coco_json(drawn: list[Drawn], *, masks: bool = True) -> dict:
    """The annotations of pictures as COCO's JSON, with category ids 3 and 7."""
    annotations = []
    for number, picture in enumerate(drawn, start=1):
        for kind, x0, y0, x1, y1, outline in picture.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": (3, 7)[kind],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    **({"segmentation": [outline]} if masks else {}),
                }
            )
    return {
        "images": [
            {"id": i, "file_name": each.name, "height": each.size[0], "width": each.size[1]}
            for i, each in enumerate(drawn, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "disc"}, {"id": 7, "name": "square"}],
    }


def write_coco(root: Path, *, train: int = 6, val: int = 3, masks: bool = True) -> Path:
    """Write images/ with instances_train.json and instances_val.json."""
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        drawn = [draw_shapes(root / "images" / f"{split}{i}.png", first + i) for i in range(count)]
        (root / f"instances_{split}.json").write_text(json.dumps(coco_json(drawn, masks=masks)))
    return root


def write_yolo(root: Path, *, train: int = 4, val: int = 2, outlines: bool = False) -> Path:
    """Write images/SPLIT, labels/SPLIT and data.yaml."""
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        for i in range(count):
            drawn = draw_shapes(root / "images" / split / f"{i}.png", first + i)
            label = root / "labels" / split / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("".join(yolo_line(drawn, each, outlines) for each in drawn.objects))
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: disc\n  1: square\n"
    )
    return root


def yolo_line(drawn: Drawn, each: tuple, outline: bool = False) -> str:
    """An object as a line of YOLO's."""
    height, width = drawn.size
    kind, x0, y0, x1, y1, points = each
    if outline:
        shares = [value / (height if i % 2 else width) for i, value in enumerate(points)]
    else:
        shares = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height]
        shares += [(x1 - x0) / width, (y1 - y0) / height]
    return " ".join([str(kind), *(f"{share:.6f}" for share in shares)]) + "\n"


def voc_xml(drawn: Drawn) -> str:
    """A picture's annotation as Pascal VOC's XML, which counts pixels from 1."""
    objects = "".join(
        f"<object><name>{NAMES[kind]}</name><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for kind, x0, y0, x1, y1, _ in drawn.objects
    )
    return (
        f"<annotation><folder>x</folder><filename>{drawn.name}</filename><size><width>"
        f"{drawn.size[1]}</width><height>{drawn.size[0]}</height><depth>3</depth></size>{objects}"
        "</annotation>"
    )


def write_voc(root: Path, *, train: int = 4, val: int = 2) -> Path:
    """Write JPEGImages/, Annotations/ and ImageSets/Main."""
    for split, count, first in (("train", train, 0), ("val", val, 100)):
        names = [f"{split}_{i}" for i in range(count)]
        for i, name in enumerate(names):
            drawn = draw_shapes(root / "JPEGImages" / f"{name}.png", first + i)
            (root / "Annotations").mkdir(exist_ok=True)
            (root / "Annotations" / f"{name}.xml").write_text(voc_xml(drawn))
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root
