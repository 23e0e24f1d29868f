"""A task of one's own is one class: the public parts train, resume, evaluate and report it."""

import signal
from pathlib import Path

import pytest
import torch
from runs import draw, metrics, weights
from torch import Tensor, nn

from convnextv2.data.build_transforms import build_batch_transform, build_preprocessing
from convnextv2.data.loader import Batch, build_evaluation_loader, build_training_loader
from convnextv2.data.sources import find_sources
from convnextv2.errors import CheckpointError, Stopped
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.run import Run
from convnextv2.training.build import build_network
from convnextv2.training.start import Start
from convnextv2.verbs.options import PretrainOptions
from convnextv2.verbs.session import new_run, run_task
from convnextv2.weights.description import Description
from convnextv2.weights.restore import load_model


class MeanColour:
    """Predict the mean of each channel of an image."""

    depths, baseline_loss, score, validation = (), None, "likeness", None

    def __init__(self, start: Start) -> None:
        self.recipe, self.place = start.recipe, start.place
        self.source, _ = find_sources(self.recipe, labelled=False)
        torch.manual_seed(self.recipe.seed)
        self.model = build_network(self.recipe, 3)
        self.description = Description(
            "mean_colour",
            self.recipe.model,
            self.model.arguments,
            preprocessing=build_preprocessing(self.recipe).to_json(),
            provenance=start.load_into(self.model),
        )
        self.best_description = self.description
        self.normalise = build_batch_transform(self.recipe, 0).normalise
        self.loader = build_training_loader(self.recipe, self.source, self.place)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        images = self.normalise(batch.pixels)
        return (model(images) - images.mean((2, 3))).square().mean()

    def size(self, batch: Batch) -> int:
        return len(batch.indices)

    def evaluate(self) -> dict[str, float]:
        batches = build_evaluation_loader(self.recipe, self.source, self.place)
        with torch.inference_mode():
            errors = [float(self.loss(self.model, batch, torch.Generator())) for batch in batches]
        return {"likeness": -sum(errors) / len(errors)}

    def report(self, run: Run) -> None:
        evals = [record for record in run.metrics() if record["kind"] == "eval"]
        summary = {"likeness": f"{max(record['likeness'] for record in evals):.3f}"}
        page = build_page(
            "Mean colour",
            summary=summary,
            recipe=self.recipe.model_dump(),
            metrics=run.metrics(),
        )
        write_page(run.report, page)


SETTINGS = {
    "model": "custom",
    "depths": (1, 1, 1, 1),
    "dims": (8, 8, 8, 8),
    "image_size": 32,
    "batch_size": 4,
    "workers": 0,
    "epochs": 3,
    "lr": 0.02,
    "warmup_epochs": 0,
    "device": "cpu",
    "log_every_steps": 1,
}


def learn(task: type[MeanColour], **settings) -> Path:
    options = PretrainOptions.read(SETTINGS | settings)
    with new_run(options) as start:
        learned = task(start)
        if run_task(learned, start):
            learned.report(start.run)
    return start.run.path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        draw(root / f"{i}.jpg", i % 3, i)
    return str(root)


def test_a_task_of_its_own_learns_is_evaluated_and_reported(photos: str, tmp_path: Path) -> None:
    run = learn(MeanColour, data_dir=photos, out=str(tmp_path / "run"), epochs=8)
    likeness = [record["likeness"] for record in metrics(run) if record["kind"] == "eval"]
    assert len(likeness) == 8 and max(likeness) > likeness[0] / 2  # less than half of the error
    page = (run / "report.html").read_text()
    assert "Mean colour" in page and f"{max(likeness):.3f}" in page
    with pytest.raises(CheckpointError, match="mean_colour"):
        load_model(run / "best" / "model.safetensors")


def test_a_task_of_its_own_resumes_exactly(photos: str, tmp_path: Path) -> None:
    class Interrupted(MeanColour):
        def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            seen.append(batch)
            if len(seen) == 8:  # three of the first epoch, three of its evaluation, two more
                signal.raise_signal(signal.SIGTERM)
            return super().loss(model, batch, generator)

    straight = learn(MeanColour, data_dir=photos, out=str(tmp_path / "straight"))
    halted = tmp_path / "halted"
    seen: list[Batch] = []
    with pytest.raises(Stopped):
        learn(Interrupted, data_dir=photos, out=str(halted))
    learn(MeanColour, data_dir=photos, out=str(halted), resume=True)
    expected, found = weights(straight), weights(halted)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
