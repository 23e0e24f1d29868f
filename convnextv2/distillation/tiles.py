"""Masked distillation: a student sees some tiles, and predicts a teacher's features of all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnextv2.console import say
from convnextv2.distillation.losses import feature_loss
from convnextv2.distillation.teacher import Teacher
from convnextv2.errors import RecipeError
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.layers import init_weights
from convnextv2.model.tiles import Tiles
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe


@dataclass(frozen=True, eq=False)
class TileLessons:
    """The loss of FCMAE with a teacher that sees the whole images.

    Two linear layers predict the teacher's features of each cell: one maps the encoder's output for
    visible tiles, and one the decoder's for masked tiles.

    Attributes:
        teacher: The teacher, whose answers have a map.
        seen_by_student: How the student's images are normalised.
        grid: Rows and columns of tiles in an image.
        cells: The cells on the side of a tile.
        weight: The weight of the loss against the teacher.
        task_weight: The weight of the reconstruction.
    """

    teacher: Teacher
    seen_by_student: Preprocessing
    grid: tuple[int, int]
    cells: int
    weight: float
    task_weight: float

    def loss(self, model: nn.Module, images: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            model: The student, an `FCMAE` with a projection, which may be wrapped.
            images: float32 (N, C, H, W), normalised.
            visible: int64 (N, V), the tiles that the encoder sees.
            masked: int64 (N, L - V), the tiles that it does not see.

        Returns:
            A scalar.
        """
        error, predicted = model(images, visible, masked, projected=True)
        features = self.features(images)
        wanted = torch.cat(
            [
                Tiles(tiles, self.grid).canvas(self.cells).pick(features)
                for tiles in (visible, masked)
            ],
            dim=1,
        )
        loss: Tensor = self.task_weight * error + self.weight * feature_loss(predicted, wanted)
        return loss

    def features(self, images: Tensor) -> Tensor:
        """Return the teacher's features of every cell of the student.

        If the teacher's map has another size than the student's, it is resized.

        Args:
            images: float32 (N, C, H, W), normalised.

        Returns:
            float32 (N, rows, columns, width).
        """
        features = self.teacher(images, self.seen_by_student).map
        assert features is not None, "build_tile_lessons checks that"
        features = features.float()
        size = self.grid[0] * self.cells, self.grid[1] * self.cells
        if tuple(features.shape[1:3]) == size:
            return features
        resized = F.interpolate(
            features.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False, antialias=True
        )
        return resized.permute(0, 2, 3, 1)


def build_tile_lessons(
    recipe: Recipe, teacher: Teacher, student: FCMAE, preprocessing: Preprocessing
) -> TileLessons:
    """Add layers to an FCMAE that predict the teacher's features.

    Args:
        recipe: The recipe.
        teacher: The teacher.
        student: The student, which gets a projection with random weights.
        preprocessing: How the student's images are prepared.

    Raises:
        RecipeError: The teacher is an artifact that returns no map of features.
    """
    for line in teacher.lines:
        say(line)
    if not teacher.has_map:
        raise RecipeError(
            f"teacher = {teacher.name}: returns no map of features, which pretrain needs. Give the "
            "run itself, or export it with --outputs backbone."
        )
    widths = {"visible": student.encoder.dims[-1], "masked": student.arguments["decoder_dim"]}
    student.projection = nn.ModuleDict(
        {name: nn.Linear(width, teacher.width) for name, width in widths.items()}
    )
    student.projection.apply(init_weights)
    say("The teacher gives features of all tiles, visible and masked.")
    return TileLessons(
        teacher,
        preprocessing,
        student.grid(*preprocessing.image_size),
        student.tile // student.cell,
        recipe.distill_weight,
        1.0 if recipe.task_weight is None else recipe.task_weight,
    )
