"""Compare runs with each other, or weights that belong to no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convnextv2.console import print_json, say
from convnextv2.deploy.artifact import Artifact
from convnextv2.distributed import Place, joined
from convnextv2.errors import CheckpointError, RecipeError
from convnextv2.evaluation.comparison import MAX_RUNS, Changed, Compared, build_comparison
from convnextv2.evaluation.page import write_page
from convnextv2.find import run_of
from convnextv2.inference.opening import open_model
from convnextv2.kernels import choice
from convnextv2.places import check_page
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.tasks.classification.compare import align, changed_images
from convnextv2.tasks.classification.measure import MeasuredClassifier, evaluate_classifier
from convnextv2.tasks.page import short
from convnextv2.verbs.options.measuring import CompareOptions
from convnextv2.verbs.options.shared import LABELLED_IMAGES
from convnextv2.verbs.own_images import with_own_images
from convnextv2.weights.opened import Weights


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One of the models: its path, its content, and the run that it belongs to."""

    path: str
    opened: Weights | Artifact
    run: Run | None

    @property
    def kind(self) -> str:
        card = self.opened.card if isinstance(self.opened, Artifact) else self.opened.description
        return card.kind


@takes(CompareOptions)
def compare(options: CompareOptions) -> Path:
    """Compare runs: accuracy image by image, learning curves, classes, settings and cost.

    All classifiers are measured on the same images: the validation images of the first run, or
    those that `data_dir` names. Pre-training runs are compared by their curves, settings and cost.

    Returns:
        The page.

    Raises:
        RecipeError: There are fewer than two runs, or too many, or `out` cannot be written.
        CheckpointError: The runs cannot be compared.
    """
    paths = [str(path) for path in options.runs]
    if not 2 <= len(paths) <= MAX_RUNS:
        raise RecipeError(
            f"runs: {len(paths)} given, expected 2 to {MAX_RUNS}. Name the runs to compare."
        )
    page = Path(options.out)
    check_page(page, "comparison.html")
    given, notes = options.recipe()
    choice.choose(given.kernels)
    candidates = [_open(path) for path in paths]
    kinds = {candidate.kind for candidate in candidates}
    if kinds not in ({"classifier"}, {"fcmae"}):
        listed = ", ".join(f"{each.path} ({each.kind})" for each in candidates)
        raise CheckpointError(
            f"{listed}: only single-label classifiers, or only pre-training runs, "
            "can be compared. Leave the others out."
        )
    with joined(given.device, "off") as (place, more):
        for line in (*notes, *more):
            say(line)
        class_names: list[str] = []
        changed: list[Changed] = []
        if kinds == {"fcmae"}:
            models = _compare_pretraining(candidates)
        else:
            models, class_names, changed = _compare_classifiers(candidates, given, place)
    write_page(page, build_comparison(_title(paths), models, class_names, changed))
    for line in _lines(models):
        say(line)
    say(f"Page: {page}")
    print_json(_answer(models, page))
    return page


def _open(path: str) -> _Candidate:
    opened = open_model(path)
    return _Candidate(path, opened, run_of(opened.path))


def _compare_pretraining(candidates: Sequence[_Candidate]) -> list[Compared]:
    return [
        Compared(
            _letter(i),
            each.path,
            records=each.run.metrics() if each.run else (),
            settings=each.run.recipe.model_dump() if each.run else {},
            cost=_cost(each.run, None),
        )
        for i, each in enumerate(candidates)
    ]


def _compare_classifiers(
    candidates: Sequence[_Candidate], given: Recipe, place: Place
) -> tuple[list[Compared], list[str], list[Changed]]:
    """Measure the models on the same images.

    Returns:
        The models, the names of the classes, and the images that the models classify differently.
    """
    first = with_own_images(given, candidates[0].opened.path)
    images = {name: getattr(first, name) for name in LABELLED_IMAGES}
    measured = [_measure(each, given, images, place) for each in candidates]
    aligned = align(measured)
    letters = [_letter(i) for i in range(len(candidates))]
    models = [
        Compared(
            letters[i],
            each.path,
            found.evaluation,
            aligned.paired(i) if i else None,
            each.run.metrics() if each.run else (),
            each.run.recipe.model_dump() if each.run else {},
            _cost(each.run, found),
        )
        for i, (each, found) in enumerate(zip(candidates, measured, strict=True))
    ]
    names = measured[0].description.class_names
    if any(found.description.class_names != names for found in measured):
        say("Classes are not compared one by one: the models do not have them in the same order.")
        names = []
    return models, names, changed_images(aligned, letters, measured[0])


def _measure(
    candidate: _Candidate, given: Recipe, images: dict[str, Any], place: Place
) -> MeasuredClassifier:
    """Measure a model on the images that these knobs name."""
    prepared: dict[str, Any] = {}
    if isinstance(candidate.opened, Weights):
        prepared = {
            name: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
            for name, value in candidate.opened.description.preprocessing.items()
        }
        prepared["in_channels"] = prepared.pop("channels", 3)
    base = candidate.run.recipe if candidate.run else given.model_copy(update=prepared)
    how = {name: getattr(given, name) for name in CompareOptions.knobs if name not in images}
    say(f"{candidate.path}:")
    return evaluate_classifier(candidate.opened, with_inferred(base, how | images), place)


def _cost(run: Run | None, measured: MeasuredClassifier | None) -> dict[str, str]:
    """Return the size of a model and the cost of its training by name, ready to print."""
    records = run.metrics() if run else []
    epochs = [record for record in records if record["kind"] == "epoch"]
    paces = [r["images_per_second"] for r in records if r.get("images_per_second")]
    seconds = sum(record.get("total_s", 0.0) for record in epochs)
    return {
        "Parameters": short(measured.parameters) if measured else "–",
        "Epochs": str(epochs[-1]["epoch"]) if epochs else "–",
        "Training, minutes": f"{seconds / 60:.1f}" if epochs else "–",
        "Images/s": f"{np.median(paces):.0f}" if paces else "–",
    }


def _title(paths: Sequence[str]) -> str:
    """Name the first three models, and say how many more there are."""
    title = " and ".join(Path(path).resolve().name for path in paths[:3])
    return title + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _lines(models: Sequence[Compared]) -> list[str]:
    """Write the comparison as lines of text."""
    lines = []
    for model in models:
        line = f"{model.letter}  {model.name}"
        if model.evaluation is not None:
            line += f"  top-1 {model.evaluation.top1:.2%}"
        if model.paired is not None:
            paired = model.paired
            low, high = (100 * limit for limit in paired.interval)
            line += (
                f"  {100 * paired.difference:+.2f} points (95 % interval {low:+.2f} to {high:+.2f},"
                f" p {paired.p_value:.2g}): {paired.gained} images gained, {paired.lost} lost"
            )
        lines.append(line)
    return lines


def _answer(models: Sequence[Compared], page: Path) -> dict[str, Any]:
    """Return the answer as `verbs.answers.compared.Comparison` describes it."""
    return {
        "page": str(page),
        "models": [
            {
                "path": model.name,
                "top1": model.evaluation.top1 if model.evaluation else None,
                "balanced_accuracy": model.evaluation.balanced_accuracy
                if model.evaluation
                else None,
                "paired": None
                if model.paired is None
                else {
                    "images": model.paired.images,
                    "gained": model.paired.gained,
                    "lost": model.paired.lost,
                    "difference": model.paired.difference,
                    "interval": list(model.paired.interval),
                    "p_value": model.paired.p_value,
                },
            }
            for model in models
        ],
    }
