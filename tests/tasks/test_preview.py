import csv
import json
from pathlib import Path

import pytest
import torch
from maps import draw_maps
from PIL import Image
from runs import SMALL, draw
from shapes import coco_json, draw_shapes
from torch import Tensor

from convnextv2.cli import main
from convnextv2.evaluation.gallery import to_pixels
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.fcmae import FCMAE
from convnextv2.tasks import preview

MIXED = ["--mixup", "0.8", "--cutmix", "1", "--re_prob", "0.5", "--batch_size", "4"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preview") / "photos"
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(6):
            draw(root / "train" / name / f"{i}.png", colour, 10 * colour + i)
        draw(root / "val" / name / "0.png", colour, 100 + colour)
    return root


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Tensor], list[str]]]:
    """Record the images and the titles of the contact sheets that a test draws."""
    made: list[tuple[list[Tensor], list[str]]] = []
    draw_sheet = preview.contact_sheet

    def keep(images: list[Tensor], titles: list[str]) -> Image.Image:
        made.append((images, titles))
        return draw_sheet(images, titles)

    monkeypatch.setattr(preview, "contact_sheet", keep)
    return made


def test_the_images_shown_are_those_that_training_gets(
    photos: Path, tmp_path: Path, sheets, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Tensor] = []  # blank images, which measure the memory, do not count
    forward = ConvNeXtV2.forward

    def watched(model: ConvNeXtV2, images: Tensor) -> Tensor:
        if (
            model.training and images.device.type == "cpu" and images.std() > 0
        ):  # blank images measure the memory
            given.append(images.detach().clone())
        return forward(model, images)

    options = ["--data_dir", str(photos), *SMALL, *MIXED, "--epochs", "1"]
    file = tmp_path / "first.png"
    assert main(["train", *options, "--show_images", str(file)]) == 0
    assert not given and [path.name for path in tmp_path.iterdir()] == ["first.png"]
    monkeypatch.setattr(ConvNeXtV2, "forward", watched)
    assert main(["train", *options, "--out", str(tmp_path / "run")]) == 0
    images, titles = sheets[0]
    mean, std = _moments(tmp_path / "run")
    trained = to_pixels(torch.cat(given)[: len(images)], mean, std)
    assert torch.equal(trained, torch.stack(images))
    assert len(titles) == 16  # of four steps; the last two images fill no batch
    assert any(" + " in title and "%" in title for title in titles)
    with Image.open(file) as picture:
        assert picture.format == "PNG"


def _moments(run: Path) -> tuple[list[float], list[float]]:
    from convnextv2.run import open_run

    recipe = open_run(run).recipe
    return list(recipe.mean), list(recipe.std)


def test_pretraining_shows_what_the_masks_of_its_first_step_leave(
    photos: Path, tmp_path: Path, sheets, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Tensor, Tensor]] = []
    forward = FCMAE.forward

    def watched(model: FCMAE, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        if images.device.type == "cpu" and images.std() > 0:
            given.append((images, visible))
        return forward(model, images, visible, masked)

    options = ["--data_dir", str(photos), *SMALL, "--epochs", "1", "--decoder_dim", "8"]
    assert main(["pretrain", *options, "--show_images", str(tmp_path / "a.png")]) == 0
    monkeypatch.setattr(FCMAE, "forward", watched)
    assert main(["pretrain", *options, "--out", str(tmp_path / "run")]) == 0
    images, titles = sheets[0]
    pixels = to_pixels(given[0][0], *_moments(tmp_path / "run"))
    side = pixels.shape[-1]
    first = torch.stack(images[: len(pixels)])
    assert torch.equal(first[..., :side], pixels)
    tile = 32
    grid = side // tile
    for each, visible in zip(first[..., side + 2 :], given[0][1], strict=True):
        for number in range(grid * grid):
            row, column = divmod(number, grid)
            part = each[:, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
            assert bool((part == 128).all()) == (number not in visible.tolist())
    hidden = grid**2 - given[0][1].shape[1]
    assert set(titles) == {f"{hidden} of {grid**2} tiles masked"}


def test_several_labels_are_all_named(photos: Path, tmp_path: Path, sheets) -> None:
    with open(tmp_path / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "sky", "sea"])
        for i, path in enumerate(sorted(photos.glob("train/*/*"))):
            writer.writerow([path, int(i % 2 == 0), 1])
    options = ["--data_dir", str(tmp_path / "table.csv"), *SMALL, "--batch_size", "4"]
    assert main(["train", *options, "--show_images", str(tmp_path / "a.png")]) == 0
    assert set(sheets[0][1]) == {"sky, sea", "sea"}


def test_maps_and_boxes_are_drawn_over_the_images(tmp_path: Path, sheets) -> None:
    draw_maps(tmp_path / "maps")
    options = ["--task", "segmentation", "--data_dir", str(tmp_path / "maps"), *SMALL]
    assert main(["train", *options, "--show_images", str(tmp_path / "maps.png")]) == 0
    images, titles = sheets.pop()
    assert all("background" in title for title in titles)
    width = (images[0].shape[-1] - 2) // 2
    assert not torch.equal(images[0][..., :width], images[0][..., width + 2 :])
    root = tmp_path / "coco"
    drawn = [draw_shapes(root / "images" / f"{i}.png", i) for i in range(8)]
    for split, part in (("train", drawn[:6]), ("val", drawn[6:])):
        (root / f"instances_{split}.json").write_text(json.dumps(coco_json(part)))
    options = ["--task", "detection", "--data_dir", str(root), *SMALL]
    assert main(["train", *options, "--show_images", str(tmp_path / "boxes.png")]) == 0
    images, titles = sheets.pop()
    assert any("disc" in title or "square" in title for title in titles)


def test_what_cannot_be_shown_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data_dir", str(photos), *SMALL]
    assert main(["train", *options, "--show_images", str(tmp_path / "a.txt")]) == 2
    assert "expected the name of a PNG file" in capsys.readouterr().err
    shown = ["--show_images", str(tmp_path / "a.png")]
    assert main(["train", *options, *shown, "--resume"]) == 2
    assert "Leave resume out" in capsys.readouterr().err
    assert main(["train", *options, *shown, "--batch_size", "400"]) == 2
    wanted = "batch_size = 400: there are only 18 training images, which do not fill one batch. "
    assert f"{wanted}Use --batch_size 18 or less, or --batch_size auto." in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
    broken = tmp_path / "broken"
    for name in ("a", "b"):
        (broken / "train" / name).mkdir(parents=True)
        (broken / "train" / name / "0.png").write_bytes(b"no image")
    options = ["--data_dir", str(broken), *SMALL, "--batch_size", "2", "--bad_images", "skip"]
    assert main(["train", *options, *shown]) == 2
    assert "none of the 2 training images can be read" in capsys.readouterr().err
