import numpy as np
import pytest
import torch
from PIL import Image

from convnextv2.data.decode import open_picture
from convnextv2.data.dense.geometry import Placement, draw_placement, fitted
from convnextv2.data.randomness import generator_for

FILL = (9, 9, 9)


def marked(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose levels are its rows and columns, and a map of them."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return pixels, (rows * width + columns).to(torch.int16)


def test_image_map_points_and_boxes_move_alike() -> None:
    """Every pixel of a map that is doubled, cut and mirrored is where its image's pixel is."""
    pixels, labels = marked(20, 30)
    placement = Placement((24, 40), (20, 30), (40, 60), top=7, left=11, flip=True)
    image = placement.place_image(pixels, fill=FILL, interpolation="nearest", antialias=False)
    cut = placement.place_map(labels, -1)
    assert image.shape == (3, 24, 40) and cut.shape == (24, 40)
    assert torch.equal(image[0].long() * 30 + image[1].long(), cut.long())

    corner = placement.place_points(torch.tensor([[15.0, 10.0]]))[0]  # x, y of a pixel's corner
    x, y = corner.tolist()
    assert (x, y) == (40 - (30 - 11), 20 - 7)
    # the pixel right of the corner lies left of it when mirrored
    assert cut[int(y), int(x) - 1] == 10 * 30 + 15

    box = placement.place_boxes(torch.tensor([[10.0, 5.0, 20.0, 15.0]]))[0].tolist()
    assert box == [40 - (40 - 11), 10 - 7, 40 - (20 - 11), 30 - 7]


def test_a_small_image_lies_at_the_top_left_and_padding_is_filled() -> None:
    pixels, labels = marked(6, 8)
    for flip in (False, True):
        placement = Placement((10, 12), (6, 8), (6, 8), flip=flip)
        image, cut = placement.place_image(pixels, fill=(1, 2, 3)), placement.place_map(labels, -1)
        expected = pixels.flip(-1) if flip else pixels
        assert torch.equal(image[:, :6, :8], expected)
        assert image[:, 6:].flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]
        assert (cut[6:] == -1).all() and (cut[:, 8:] == -1).all() and (cut[:6, :8] >= 0).all()


@pytest.mark.parametrize("resized", [(13, 9), (41, 37), (20, 30)])
def test_labels_are_those_of_the_pixels_in_which_centres_lie(resized: tuple[int, int]) -> None:
    _, labels = marked(20, 30)
    made = Placement(resized, (20, 30), resized).place_map(labels, -1)
    for row in range(resized[0]):
        for column in range(resized[1]):
            at = int((row + 0.5) * 20 / resized[0]), int((column + 0.5) * 30 / resized[1])
            assert made[row, column] == labels[at]


def test_an_image_is_resized_as_pillow_resizes_it() -> None:
    pixels = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=generator_for("noise"))
    placement = Placement((30, 30), (50, 70), (40, 56), top=5, left=20)
    made = placement.place_image(pixels, fill=FILL, interpolation="bilinear")
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    whole = np.array(image.resize((56, 40), Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(made.permute(1, 2, 0).numpy().astype(int) - whole[5:35, 20:50])
    assert difference.max() <= 1


def test_a_file_may_be_decoded_smaller_and_lies_at_the_same_place(tmp_path) -> None:
    rows, columns = np.mgrid[0:800, 0:1200]
    smooth = np.stack([rows / 4, columns / 6, (rows + columns) / 9], -1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    placement = Placement((64, 64), (800, 1200), (100, 150), top=20, left=60)
    file = open_picture(data, name="a.jpg", max_pixels=10**7)
    assert placement._reduction() == 4
    made = placement.place_image(file, fill=FILL)
    whole = placement.place_image(
        open_picture(data, name="a.jpg", max_pixels=10**7).decode(), fill=FILL
    )
    assert (made.int() - whole.int()).abs().max() <= 3


def test_a_fitted_size_covers_or_lies_inside_and_keeps_the_aspect_ratio() -> None:
    assert fitted((300, 400), (512, 512), "cover") == (512, 683)  # ADE20K's (2048, 512)
    assert fitted((300, 400), (512, 512), "inside") == (384, 512)
    assert fitted((300, 400), (512, 512), "cover", 0.5) == (256, 341)
    assert fitted((413, 275), (256, 192), "cover") == (288, 192)
    height, width = fitted((1, 100_000), (64, 64), "cover")
    assert (height, width) == (1, 1024)


def test_a_placement_follows_from_the_generator_and_stays_in_its_range() -> None:
    def draw(index: int) -> Placement:
        return draw_placement(
            (300, 400),
            (128, 128),
            factor=(0.5, 2.0),
            fit="cover",
            hflip=0.5,
            generator=generator_for(1, "image", 0, index),
        )

    drawn = [draw(index) for index in range(300)]
    assert drawn == [draw(index) for index in range(300)]
    assert 64 <= min(each.resized[0] for each in drawn) <= 70
    assert 250 <= max(each.resized[0] for each in drawn) <= 256
    assert 120 <= sum(each.flip for each in drawn) <= 180
    for each in drawn:
        assert 0 <= each.top <= max(0, each.resized[0] - 128)
        assert 0 <= each.left <= max(0, each.resized[1] - 128)
        assert each.content == tuple(
            min(128, side - at)
            for side, at in zip(each.resized, (each.top, each.left), strict=True)
        )
