import numpy as np
import pytest
from PIL import Image, ImageOps

from convnextv2.data.dense import rle
from convnextv2.data.dense.objects import Objects, ObjectTable, turned


def some_objects(seed: int, size: tuple[int, int] = (20, 30)) -> Objects:
    random = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    mask[4:9, 10:20] = 1
    corners = random.uniform(0, 15, (3, 2, 2)).cumsum(1)
    return Objects(
        size,
        corners.reshape(3, 4),
        random.integers(0, 5, 3),
        np.array([False, True, False]),
        random.uniform(1, 100, 3),
        ((random.uniform(0, 9, (4, 2)), random.uniform(0, 9, (3, 2))), rle.encode(mask), None),
    )


def test_a_table_returns_what_was_put_in() -> None:
    empty = some_objects(9).take(np.zeros(3, bool))
    images = [some_objects(0), empty, some_objects(1, (40, 50))]
    table = ObjectTable(images)
    assert len(table) == 3
    for i, each in enumerate(images):
        found = table[i]
        assert found.size == each.size and len(found) == len(each)
        for name in ("boxes", "labels", "crowd", "areas"):
            assert np.array_equal(getattr(found, name), getattr(each, name)), name
        for ours, theirs in zip(found.regions, each.regions, strict=True):
            if isinstance(theirs, tuple) and not isinstance(theirs, rle.Rle):
                assert isinstance(ours, tuple) and len(ours) == len(theirs)
                assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
            else:
                assert ours == theirs
    assert table.digest() == ObjectTable(images).digest() != ObjectTable(images[::-1]).digest()
    part = table.take(np.array([2, 0]))
    assert np.array_equal(part[0].boxes, images[2].boxes) and len(part) == 2
    assert table.classes_of(0).tolist() == images[0].labels[[0, 2]].tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_objects_turn_as_pictures_do(orientation: int) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:7, 11:24] = 1
    box = np.array([[11.0, 2.0, 24.0, 7.0]])
    outline = np.array([[11.0, 2.0], [24.0, 2.0], [24.0, 7.0], [11.0, 7.0]])
    one = Objects(
        (20, 30),
        box.repeat(2, 0),
        np.zeros(2, np.int64),
        np.zeros(2, bool),
        np.ones(2),
        (rle.encode(mask), (outline,)),
    )
    picture = Image.fromarray(mask)
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    found = turned(one, orientation)
    rows, columns = np.nonzero(expected)
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found.size == expected.shape
    assert found.boxes.tolist() == [around, around]
    assert (rle.decode(found.regions[0]) == expected).all()
    assert (rle.decode(rle.from_polygons(found.regions[1], found.size)) == expected).all()
