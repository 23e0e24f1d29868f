"""Step time of masked distillation against dense distillation, of the student alone and in all.

Masked: the student sees the visible tiles, reconstructs the masked ones, and predicts the teacher's
features of both (`convnextv2 pretrain --teacher`). Dense: the student sees whole images, and
predicts the teacher's features of all cells. In both, the teacher sees whole images.

    python benchmarks/masked_distillation.py --student atto --teacher tiny --batch_size 16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convnextv2.distillation.losses import feature_loss
from convnextv2.distillation.teacher import Answer, Teacher
from convnextv2.distillation.tiles import TileLessons, build_tile_lessons
from convnextv2.model.convnext import ConvNeXtV2, create_model
from convnextv2.model.fcmae import FCMAE, draw_masks
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe


def build_teacher(network: ConvNeXtV2, preprocessing: Preprocessing) -> Teacher:
    """Wrap a network with random weights as a teacher."""

    def answer(images: Tensor) -> Answer:
        encoded = network.encode(images)
        return Answer(None, encoded.mean((1, 2)), encoded)

    return Teacher(
        name="random",
        answer=answer,
        preprocessing=preprocessing,
        class_names=[],
        rows=0,
        width=network.dims[-1],
        has_map=True,
        format="",
        balance={},
        record={},
        lines=[],
    )


def masked_step(
    student: FCMAE, lessons: TileLessons, images: Tensor, mask_ratio: float
) -> Callable[[], Tensor]:
    """Make the forward pass of masked distillation."""
    generator = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        masks = draw_masks(len(images), lessons.grid, mask_ratio, generator)
        visible, masked = (tiles.to(images.device) for tiles in masks)
        return lessons.loss(student, images, visible, masked)

    return loss


def dense_step(
    student: ConvNeXtV2, projection: nn.Linear, lessons: TileLessons, images: Tensor
) -> Callable[[], Tensor]:
    """Make the forward pass of dense distillation."""
    return lambda: feature_loss(projection(student.encode(images)), lessons.features(images))


def training_step(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    """Make a step with AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def shortest(
    steps: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Take turns, so that a busy machine disturbs all alike.

    Returns:
        The shortest time of each step in seconds, after a round that does not count.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            _finish(device)
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                step()
            _finish(device)
            taken[name].append(time.perf_counter() - start)
    return {name: min(times[1:]) for name, times in taken.items()}


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def main() -> None:
    """Measure, and print three lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="atto")
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--mask_ratio", type=float, default=0.6)
    parser.add_argument("--decoder_dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device, side = torch.device(given.device), given.image_size
    preprocessing = Preprocessing((side, side))
    images = torch.randn(given.batch_size, 3, side, side, device=device)
    network = create_model(f"convnextv2_{given.teacher}", num_classes=None).to(device).eval()
    teacher = build_teacher(network.requires_grad_(False), preprocessing)
    student = FCMAE(
        create_model(f"convnextv2_{given.student}", num_classes=None), decoder_dim=given.decoder_dim
    )
    lessons = build_tile_lessons(Recipe(teacher="random"), teacher, student, preprocessing)
    student.to(device).train()
    alone = create_model(f"convnextv2_{given.student}", num_classes=None).to(device).train()
    projection = nn.Linear(alone.dims[-1], teacher.width).to(device)

    masked_loss = masked_step(student, lessons, images, given.mask_ratio)
    dense_loss = dense_step(alone, projection, lessons, images)
    found = shortest(
        {
            "teacher": lambda: lessons.features(images),
            "masked": training_step(masked_loss, list(student.parameters())),
            "dense": training_step(dense_loss, [*alone.parameters(), *projection.parameters()]),
        },
        given.steps,
        device,
    )
    teaching, masked, dense = found["teacher"], found["masked"], found["dense"]
    print(f"teacher alone      {1e3 * teaching:8.1f} ms")
    print(
        f"masked, dense      {1e3 * masked:8.1f} ms {1e3 * dense:8.1f} ms: {dense / masked:.2f} x"
    )
    masked, dense = masked - teaching, dense - teaching
    print(
        f"student's part     {1e3 * masked:8.1f} ms {1e3 * dense:8.1f} ms: {dense / masked:.2f} x"
    )


if __name__ == "__main__":
    main()
