"""The page of a segmentor: its training, its evaluation, and its worst images."""

from __future__ import annotations

from pathlib import Path

from convnextv2.console import say
from convnextv2.data.notices import say_left_out
from convnextv2.distributed import Place
from convnextv2.errors import DataError
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.evaluation.segmentation import SegmentationEvaluation
from convnextv2.evaluation.segmentation_sections import (
    SegmentedImage,
    segmentation_headline,
    segmentation_sections,
    segmented_image,
)
from convnextv2.find import find_weights, open_run_weights, run_of
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.segmentation.measure import MeasuredMaps, evaluate_segmentor
from convnextv2.tasks.supervised.page import page_of, pretraining, short
from convnextv2.tasks.title import title
from convnextv2.text import typed
from convnextv2.weights.opened import Weights


def report_segmentation(
    run: Run, place: Place, init: Weights | None = None, *, validated: bool
) -> SegmentationEvaluation | None:
    """Evaluate the best weights of a finished run on its validation images, and write its report.

    Args:
        run: The run.
        place: This rank. The other ranks take no part in the report.
        init: The weights that the run was started from, if they are open.
        validated: Whether there are validation images.

    Returns:
        The evaluation, or None if there are no validation images.
    """
    recipe = run.recipe
    if not validated:
        write_page(run.report, _page(run.path, run, None, recipe, init))
        return None
    weights = open_run_weights(find_weights(run.path))
    measured = evaluate_segmentor(weights, recipe, Place(place.device))
    say_left_out(measured.skipped, "validation image")
    write_segmentation_report(weights.path, measured, recipe, init)
    return measured.evaluation


def write_segmentation_report(
    weights: Path, measured: MeasuredMaps, recipe: Recipe, init: Weights | None = None
) -> Path:
    """Write the page of an evaluation.

    Args:
        weights: The path of the weights that were evaluated.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.

    Returns:
        The path of the page; see `classification.report.write_evaluation_report`.
    """
    path, run = page_of(weights, recipe), run_of(weights)
    write_page(path, _page(weights, run, measured, recipe, init))
    return path


def _page(
    weights: Path,
    run: Run | None,
    measured: MeasuredMaps | None,
    recipe: Recipe,
    init: Weights | None,
) -> str:
    gallery, pretrain_metrics = pretraining(recipe, init)
    summary = {
        "model": recipe.model.removeprefix("convnextv2_"),
        "image size": f"{recipe.image_size} px",
    }
    sections = []
    if measured:
        channels: int = measured.description.arguments["in_channels"]
        summary = segmentation_headline(measured.evaluation) | summary
        summary |= {"parameters": short(measured.parameters), "evaluated on": _how(measured)}
        if measured.skipped:
            summary["validation images left out"] = str(len(measured.skipped))
        sections = segmentation_sections(measured.evaluation, _examples(measured), channels)
    name = typed(run.path if run else weights)
    return build_page(
        title(recipe),
        summary=summary,
        recipe=recipe.model_dump(),
        metrics=run.metrics() if run else (),
        sections=sections,
        gallery=gallery,
        channels=recipe.in_channels,
        pretrain_metrics=pretrain_metrics,
        next_steps=[
            (f"convnextv2 predict {name} IMAGE_OR_FOLDER --out FOLDER", "Segment new images."),
            (f"convnextv2 validate {name} --data_dir OTHER", "Measure it on other label maps."),
            (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
        ],
    )


def _how(measured: MeasuredMaps) -> str:
    """Say how images were presented to the network."""
    windows = measured.segmenter.windows
    words = "windows" if windows.slide else "whole images"
    if tuple(windows.scales) != (1.0,):
        words += f" at scales {', '.join(f'{scale:g}' for scale in windows.scales)}"
    return words + ", mirrored too" * windows.flip


def _examples(measured: MeasuredMaps) -> list[SegmentedImage]:
    """Show the worst images."""
    examples = []
    source, segmenter = measured.source, measured.segmenter
    how = segmenter.preprocessing
    for score in measured.worst:
        try:
            pixels = source.pixels(score.index, how.channels, how.value_range)
            targets = source.annotation(score.index)
        except DataError as error:  # damaged or deleted since the evaluation
            say(f"An example is left out of the report: {error}")
            continue
        examples.append(
            segmented_image(
                pixels,
                targets,
                segmenter(pixels),
                name=Path(source.names[score.index]).name,
                class_names=source.class_names,
            )
        )
    return examples
