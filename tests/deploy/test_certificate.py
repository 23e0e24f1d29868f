"""A certificate states measured figures, and an artifact that fails it is not kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trees import network, normalised, photographs

from convnextv2.deploy.artifact import open_artifact
from convnextv2.deploy.certificate import agreement, certify
from convnextv2.deploy.graph import Graph
from convnextv2.errors import ArtifactError

Exported = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


def test_the_certificate_holds_what_was_measured(exported: Exported) -> None:
    artifact = open_artifact(exported("torch"))
    found = artifact.certificate
    assert found["real"]["images"] == found["accuracy"]["images"] == 24
    # Eleven patterns, and eight photographs that were changed to mislead the model.
    assert found["adversarial"]["images"] == 19
    assert 0 <= found["real"]["mean_difference"] <= found["real"]["max_difference"] < 1e-4
    assert found["real"]["top1_agreement"] == 1
    assert set(found["real"]["others"]) == {"embedding", "explanation"}
    assert found["accuracy"]["pytorch_top1"] == found["accuracy"]["artifact_top1"]
    assert found["speed"]["pytorch_images_per_second"] > 0
    assert "validation images of" in found["images_from"]


def test_the_accuracy_is_what_validate_measures_on_the_validation_images(
    exported: Exported, pictures: Path
) -> None:
    from convnextv2 import validate

    artifact = open_artifact(exported("torch"))
    top1 = validate(artifact.path, data_dir=str(pictures), workers=0).top1
    assert artifact.certificate["accuracy"]["pytorch_top1"] == pytest.approx(top1)


def test_agreement_equals_differences_computed_by_hand() -> None:
    expected, found = (
        torch.tensor([[1.0, -4.0], [2.0, 3.0]]),
        torch.tensor([[1.5, -4.0], [2.0, 2.0]]),
    )
    assert agreement(expected, found) == {
        "images": 2,
        "max_difference": 1.0,
        "mean_difference": 0.375,
        "scale": 2.5,
    }


def test_a_half_precision_that_changes_classes_is_refused() -> None:
    class Half(Graph):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            logits, *others = super().forward(x)
            return (logits.flip(-1) * 1e-3 + logits.mean(-1, keepdim=True), *others)

    model = network()
    with torch.no_grad():
        model.head.weight *= 1e-4  # so that the classes are near each other
        model.head.bias.copy_(torch.tensor([100.0, 100.0001, 100.0002, 100.0003]))
    reference, other = Graph(model, "classifier").eval(), Half(model, "classifier").eval()

    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in other(torch.from_numpy(x))]

    with pytest.raises(
        ArtifactError, match="by .* of its range|agrees with the model on the class"
    ):
        certify(
            reference,
            run,
            "bfloat16",
            photographs(8),
            None,
            normalise=lambda x: normalised(x).float(),
            batch_size=8,
            seconds=0,
        )
