"""Masked distillation, against the teacher's map picked cell by cell."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from trees import PREPROCESSING, network, save

from convnextv2.distillation.teacher import open_teacher
from convnextv2.distillation.tiles import build_tile_lessons
from convnextv2.errors import RecipeError
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.model.tiles import Tiles
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

SIZE = PREPROCESSING | {"image_size": [128, 192]}
OWN = Preprocessing.read(SIZE)


def student(tile: int) -> FCMAE:
    return FCMAE(network(seed=2, num_classes=None), tile=tile, decoder_dim=16)


@pytest.mark.parametrize("tile", [32, 64])
def test_features_of_visible_and_masked_tiles_are_predicted(tile: int, tmp_path: Path) -> None:
    model, learner = network(seed=1), student(tile)
    path = save(model, tmp_path, preprocessing=SIZE)
    teacher = open_teacher(str(path), torch.device("cpu"), OWN)
    recipe = Recipe(teacher="t", distill_weight=0.5, task_weight=2.0)
    lessons = build_tile_lessons(recipe, teacher, learner, OWN)
    grid = learner.grid(128, 192)
    images = torch.randn(2, 3, 128, 192)
    visible, masked = draw_masks(2, grid, 0.6, torch.Generator().manual_seed(1))
    side = tile // 32
    with torch.no_grad():
        stage = model.features(images)[-1]  # (2, 48, 4, 6)
        encoded, decoded = learner._decode(images, Tiles(visible, grid), Tiles(masked, grid))
        errors = []
        parts = ("visible", visible, encoded), ("masked", masked, decoded)
        for name, indices, values in parts:
            layer = learner.projection[name]
            for n in range(2):
                for i, index in enumerate(indices[n].tolist()):
                    top, left = index // grid[1] * side, index % grid[1] * side
                    for row in range(side):
                        for column in range(side):
                            wanted = F.layer_norm(stage[n, :, top + row, left + column], (48,))
                            found = F.linear(values[n, i, row, column], layer.weight, layer.bias)
                            errors.append((found - wanted).square().mean())
        reconstruction = learner(images, visible, masked)
    assert len(errors) == 2 * 24
    expected = 2 * reconstruction + 0.5 * torch.stack(errors).mean()
    found = lessons.loss(learner, images, visible, masked)
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_teachers_map_is_resized_to_the_cells_of_the_student(tmp_path: Path) -> None:
    large = SIZE | {"image_size": [256, 384]}
    path = save(network(seed=1), tmp_path, preprocessing=large)
    teacher = open_teacher(str(path), torch.device("cpu"), OWN)
    lessons = build_tile_lessons(Recipe(teacher="t"), teacher, student(32), OWN)
    assert lessons.features(torch.randn(2, 3, 128, 192)).shape == (2, 4, 6, 48)


def test_a_teacher_without_a_map_is_refused(exported: Callable[..., Path]) -> None:
    teacher = open_teacher(str(exported("onnx")), torch.device("cpu"), OWN)
    with pytest.raises(RecipeError, match="returns no map of features.*--outputs backbone"):
        build_tile_lessons(Recipe(teacher="t"), teacher, student(32), OWN)
