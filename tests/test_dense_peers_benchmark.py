"""The images of other libraries' detectors and segmentors fit their targets, and so do answers."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from torch import Tensor, nn

# pycocotools about itself, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("studies", "dense_scores", "dense_sets", "equal_time", "dense_peers")
BOX = (20, 10, 50, 34)
"""Left, top, right and bottom of the bright object in the image."""


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    found = {}
    for name in NAMES:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder with one image of one bright rectangle, of the second of two classes."""
    picture = np.zeros((48, 64, 3), np.uint8)
    left, top, right, bottom = BOX
    picture[top:bottom, left:right] = 255
    mask = np.asfortranarray(picture[..., 0] // 255)
    code = coco_masks.encode(mask)
    code["counts"] = code["counts"].decode()
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images" / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 9, "iscrowd": 0, "segmentation": code,
             "bbox": [left, top, right - left, bottom - top], "area": int(mask.sum())}
        ],
        "categories": [{"id": 4, "name": "none"}, {"id": 9, "name": "bright"}],
    }  # fmt: skip
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("name", ["bccd", "nuclei"])
def test_boxes_and_masks_follow_the_image(
    scripts: dict[str, ModuleType], objects: Path, name: str
) -> None:
    torch.manual_seed(0)
    images = scripts["dense_peers"].Objects(objects, scripts["dense_sets"].SETS[name], 64)
    seen = 0
    for _ in range(30):
        image, target = images[0]
        assert image.shape == (3, 64, 64) and 0 <= image.min() <= image.max() <= 1
        if not len(target["boxes"]):
            continue
        assert target["labels"].tolist() == [2]
        left, top, right, bottom = target["boxes"][0].round().long().tolist()
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        # Whatever its colours became, the object differs from what surrounds it; the padding is
        # grey, so what is bright need not be the object, but the object is bright.
        grey = image.mean(0)
        core = grey[top + 2 : bottom - 2, left + 2 : right - 2]
        if core.numel():
            assert core.min() > 0.4 and core.max() - core.min() < 0.1
            seen += 1
        if name == "nuclei":
            assert (target["masks"][0].bool() == inside).float().mean() > 0.97
    assert seen > 15


def test_answers_of_a_perfect_detector_have_a_perfect_score(
    scripts: dict[str, ModuleType], objects: Path
) -> None:
    class Perfect(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            mask = images[0].mean(0) > 0.5
            rows, columns = mask.nonzero().T
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            return [
                {
                    "boxes": torch.tensor([box]).float(),
                    "labels": torch.tensor([2]),
                    "scores": torch.tensor([0.9]),
                    "masks": mask[None, None].float(),
                }
            ]

    results = scripts["dense_peers"].find_objects(Perfect(), objects, "train")
    scores = scripts["dense_scores"].objects(objects / "instances_train.json", results, masks=True)
    assert scores["ap"] == pytest.approx(1) == scores["box_ap"]
    [one] = results
    assert scripts["dense_scores"].objects(
        objects / "instances_train.json", [{**one, "category_id": 4}], masks=True
    )["ap"] == pytest.approx(0)


def test_maps_follow_the_image_and_are_found_again(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    classes = np.zeros((40, 56), np.uint8)
    classes[:, 30:] = 1
    for folder in ("images", "annotations"):
        (tmp_path / folder / "train").mkdir(parents=True)
    picture = np.repeat(classes[..., None] * 255, 3, 2)
    Image.fromarray(picture).save(tmp_path / "images/train/a.png")
    Image.fromarray(classes).save(tmp_path / "annotations/train/a.png")
    peers = scripts["dense_peers"]
    kind = replace(scripts["dense_sets"].SETS["clothing_parsing"], jitter=(0.6, 1.5))
    images = peers.Maps(tmp_path, kind, 32)
    flipped = set()
    for _ in range(30):
        image, target = images[0]
        assert image.shape == (3, 32, 32) and target.shape == (32, 32)
        assert set(target.unique().tolist()) <= {0, 1, peers.IGNORED}
        grey = image.mean(0)
        if (target == 0).any() and (target == 1).any():
            assert grey[target == 1].mean() > grey[target == 0].mean() + 0.5
            flipped.add(bool(target[16, 0] == 1 or target[16, 31] == 0))
    assert flipped == {False, True}

    class Bright(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            assert batch.shape[-1] % 32 == batch.shape[-2] % 32 == 0
            grey = batch.mean(1)
            return torch.stack([-grey, grey], 1)

    found = peers.find_classes(Bright(), tmp_path / "images/train/a.png", 32)
    assert found.shape == classes.shape and (found == classes).mean() > 0.97


def test_detectors_have_the_regions_of_our_recipe(
    scripts: dict[str, ModuleType], objects: Path
) -> None:
    peers, sets = scripts["dense_peers"], scripts["dense_sets"].SETS
    boxes = peers.build(objects, sets["bccd"], 64, light=False)
    masks = peers.build(objects, sets["nuclei"], 64, light=True)
    for model in (boxes, masks):
        assert model.roi_heads.fg_bg_sampler.batch_size_per_image == 128
        assert not any("Frozen" in type(each).__name__ for each in model.modules())
        assert all(each.requires_grad for each in model.parameters())
    [cells] = masks.rpn.anchor_generator.cell_anchors[:1]
    assert (cells[1, 2] - cells[1, 0]).item() == 8  # of ratio 1, at stride 4
    [found] = boxes.eval()([torch.rand(3, 64, 64)])
    assert found["boxes"].shape[1] == 4
