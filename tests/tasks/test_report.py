from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from convnextv2.distributed import Place
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.report import report_training
from convnextv2.weights.description import Description


@dataclass
class Learned:
    """A task without validation images."""

    description: Description
    validation: None = None


@pytest.mark.parametrize("kind", ["classifier", "multi_label", "segmentation", "detection"])
def test_a_run_without_validation_has_a_page_all_the_same(kind: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    task = kind if kind in ("segmentation", "detection") else "classification"
    run.save_recipe(Recipe(task=task, data_dir="shoes", image_size=96, model="convnextv2_atto"))
    run.log({"kind": "train", "step": 1, "epoch": 1, "loss": 0.5})
    learned = Learned(Description(kind, "convnextv2_atto", {}))
    assert report_training(learned, run, Place(torch.device("cpu"))) is None
    page = run.report.read_text()
    assert "96 px" in page and "atto" in page and "ConvNeXt V2 atto on shoes" in page
    assert f"convnextv2 predict {tmp_path} IMAGE_OR_FOLDER" in page
