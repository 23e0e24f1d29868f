import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from convnextv2.data.dense import objects_geometry, rle
from convnextv2.data.dense.geometry import Placement
from convnextv2.data.dense.objects import Objects
from convnextv2.data.dense.objects_geometry import (
    ObjectEvalTransform,
    ObjectTrainTransform,
    place_objects,
)
from convnextv2.data.randomness import generator_for
from convnextv2.errors import DataError
from convnextv2.preprocessing import Preprocessing

SIZE = (60, 80)


def objects(*boxes: tuple[float, ...], form: str = "outline", crowd: bool = False) -> Objects:
    regions = []
    for x0, y0, x1, y1 in boxes:
        outline = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        regions.append((outline,))
        if form == "code":
            regions[-1] = rle.from_polygons((outline,), SIZE)
    count = len(boxes)
    return Objects(
        SIZE,
        np.array(boxes, np.float64).reshape(-1, 4),
        np.arange(count),
        np.full(count, crowd),
        np.ones(count),
        tuple(regions),
    )


def whole(target: dict[str, torch.Tensor], size: tuple[int, int]) -> np.ndarray:
    """The masks of a target as a stack of whole ones."""
    masks = np.zeros((len(target["labels"]), *size), np.uint8)
    pixels = target["mask_pixels"].numpy()
    for mask, (start, y, x, height, width) in zip(
        masks, target["mask_places"].tolist(), strict=True
    ):
        part = pixels[start : start + height * width].reshape(height, width)
        mask[y : y + height, x : x + width] = part
    return masks


@pytest.mark.parametrize("form", ["outline", "code"])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_are_those_of_the_whole_canvas(form: str, flip: bool) -> None:
    """Enlarged twice and cut, against masks of the whole resized image."""
    boxes = ((10, 8, 30, 25), (35, 20, 79, 55), (0, 0, 9, 9))
    placement = Placement((64, 96), SIZE, (120, 160), top=30, left=40, flip=flip)
    target = place_objects(objects(*boxes, form=form), placement, generator_for(0), masks=True)
    expected, kept = [], []
    for label, box in enumerate(boxes):
        x0, y0, x1, y1 = (2 * value for value in box)
        mask = np.zeros((120, 160), np.uint8)
        mask[y0:y1, x0:x1] = 1
        mask = mask[30:94, 40:136]
        if mask.any():
            expected.append(mask[:, ::-1] if flip else mask)
            kept.append(label)
    assert target["labels"].tolist() == kept == [0, 1]
    assert (whole(target, (64, 96)) == np.array(expected)).all()
    for box, mask in zip(target["boxes"].tolist(), expected, strict=True):
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert target["size"].tolist() == [64, 96]


def test_masks_have_zeros_around_them_except_at_the_edges() -> None:
    placement = Placement((60, 80), SIZE, SIZE)
    target = place_objects(
        objects((10, 8, 30, 25), (0, 0, 5, 60)), placement, generator_for(0), masks=True
    )
    assert target["mask_places"][:, 1:].tolist() == [[6, 8, 21, 24], [0, 0, 60, 7]]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_an_outline_beyond_the_canvas_is_cut_as_pycocotools_cuts_the_whole() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        outline = random.uniform(-20, 90, (6, 2))
        one = Objects(
            SIZE,
            np.array([[*outline.min(0), *outline.max(0)]]),
            np.zeros(1, np.int64),
            np.zeros(1, bool),
            np.ones(1),
            ((outline,),),
        )
        placement = Placement((50, 40), SIZE, SIZE, top=5, left=30)
        target = place_objects(one, placement, generator_for(0), masks=True)
        larger = outline + 40  # on a canvas that holds all of it
        [code] = reference.frPyObjects([larger.reshape(-1).tolist()], 200, 200)
        expected = reference.decode([code])[45:95, 70:110, 0]
        found = whole(target, (50, 40))
        found = found[0] if len(found) else np.zeros_like(expected)
        assert (found != expected).mean() < 0.02  # COCO's rounding at the edges


def test_what_is_lost_by_the_crop_is_left_out() -> None:
    boxes = ((10, 8, 30, 25), (70, 50, 80, 60), (39.5, 0, 60, 5))
    placement = Placement((40, 40), SIZE, SIZE)
    target = place_objects(objects(*boxes), placement, generator_for(0), masks=False)
    assert target["labels"].tolist() == [0]
    assert target["boxes"].tolist() == [[10, 8, 30, 25]]
    assert "mask_pixels" not in target


def test_crowds_are_not_trained_on() -> None:
    placement = Placement((60, 80), SIZE, SIZE)
    target = place_objects(
        objects((1, 1, 9, 9), crowd=True), placement, generator_for(0), masks=True
    )
    assert target["boxes"].shape == (0, 4) and target["mask_places"].shape == (0, 5)


def test_375_objects_take_as_much_memory_as_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 1, (375, 2)) * [70, 50]
    boxes = np.concatenate([corners, corners + 6], axis=1)
    placement = Placement((1024, 1024), SIZE, (768, 1024))
    many = objects(*map(tuple, boxes.tolist()))
    target = place_objects(many, placement, generator_for(0), masks=True)
    assert len(target["labels"]) == 375
    assert target["mask_pixels"].numel() < 375 * 90 * 90 < 1024 * 1024 * 375 / 100
    monkeypatch.setattr(objects_geometry, "MAX_OBJECTS", 100)
    few = place_objects(many, placement, generator_for(0), masks=False)
    assert len(few["labels"]) == 100 == len(set(few["labels"].tolist()))
    assert few["labels"].tolist() != list(range(100))
    monkeypatch.setattr(objects_geometry, "MAX_MASK_PIXELS", 20_000)
    less = place_objects(many, placement, generator_for(0), masks=True)
    assert less["mask_pixels"].numel() <= 20_000 and 0 < len(less["labels"]) < 10


def test_pixels_and_objects_move_together() -> None:
    """A bright square must be where its box is, at any scale."""
    transform = ObjectTrainTransform(
        (96, 96), factor=(0.4, 2.0), interpolation="bilinear", masks=True
    )
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    image[:, 20:40, 30:60] = 255
    one = objects((30, 20, 60, 40))
    seen = set()
    for i in range(30):
        pixels, target = transform(image, one, generator_for(i))
        if not len(target["labels"]):
            continue
        bright = pixels[0, : int(target["size"][0]), : int(target["size"][1])] > 127
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        around = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        assert target["boxes"][0].tolist() == pytest.approx(around, abs=2)
        masks = whole(target, (96, 96))
        seen.add(tuple(target["size"].tolist()))
        assert (masks[0] != (pixels[0] > 127).numpy())[
            : bright.shape[0], : bright.shape[1]
        ].mean() < 0.03
    assert len(seen) > 5


def test_the_same_draw_gives_the_same_sample() -> None:
    transform = ObjectTrainTransform((64, 64), photometric=0.5)
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    one = objects((30, 20, 60, 40))
    first, second = transform(image, one, generator_for(5)), transform(image, one, generator_for(5))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.target["boxes"], second.target["boxes"])


def test_evaluation_keeps_the_aspect_ratio_within_the_size() -> None:
    how = Preprocessing(
        (80, 133),
        channels=3,
        eval_preset="timm",
        interpolation="bilinear",
        crop_pct=1.0,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    transform = ObjectEvalTransform(how)
    for original, expected in (
        ((480, 640), (80, 107)), ((640, 480), (107, 80)), ((100, 400), (33, 133)),
        ((40, 53), (80, 106)),
    ):  # fmt: skip
        pixels, size = transform(torch.zeros(3, *original, dtype=torch.uint8))
        assert (tuple(pixels.shape[1:]), size) == (expected, original)


def test_an_image_of_another_size_than_its_objects_is_refused() -> None:
    transform = ObjectTrainTransform((64, 64))
    with pytest.raises(DataError, match="80 x 61 px, its objects are of an image of 80 x 60"):
        transform(
            torch.zeros(3, 61, 80, dtype=torch.uint8), objects((1, 1, 9, 9)), generator_for(0)
        )
