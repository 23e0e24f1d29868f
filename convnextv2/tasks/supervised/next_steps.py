"""The commands that a report proposes after training on labelled images."""

from __future__ import annotations

from convnextv2.text import typed


def next_steps(name: str, lr: float) -> list[tuple[str, str]]:
    """Return commands that make sense after training, and the purpose of each.

    Args:
        name: The run folder, as the commands name it.
        lr: The learning rate of the run.
    """
    name = typed(name)
    return [
        (f"convnextv2 predict {name} IMAGE_OR_FOLDER", "Classify new images."),
        (f"convnextv2 validate {name} --data_dir OTHER", "Measure it on other labelled images."),
        (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
        (
            f"convnextv2 train --config {name}/recipe.yaml --out NEW_RUN --lr {lr * 2:g}",
            "Try another learning rate.",
        ),
    ]
