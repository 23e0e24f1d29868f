"""The page of a segmentor: its training, its evaluation, and its worst images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from convnextv2.evaluation.segmentation_sections import (
    SegmentedImage,
    segmentation_headline,
    segmentation_sections,
    segmented_image,
)
from convnextv2.recipe.knobs import Recipe
from convnextv2.run import Run
from convnextv2.tasks.page import read_example, run_page, summary_of
from convnextv2.tasks.segmentation.measure import MeasuredMaps
from convnextv2.text import typed
from convnextv2.weights.opened import Weights


def segmentation_page(
    run: Run | None, measured: MeasuredMaps, recipe: Recipe, init: Weights | None, name: str
) -> str:
    """Build the page of an evaluation as HTML.

    Args:
        run: The run that was evaluated; None for weights on their own.
        measured: The evaluation.
        recipe: The recipe, which names the data.
        init: The weights that the run was started from, if they are open.
        name: The run folder or the weights, as commands are to name them.
    """
    channels: int = measured.description.arguments["in_channels"]
    about = summary_of(recipe, measured, {"evaluated on": _how(measured)})
    return run_page(
        run,
        recipe,
        init,
        summary=segmentation_headline(measured.evaluation) | about,
        channels=recipe.in_channels,
        next_steps=next_steps(name),
        sections=segmentation_sections(measured.evaluation, _examples(measured), channels),
    )


def next_steps(name: str) -> list[tuple[str, str]]:
    """Return commands that make sense after training, and the purpose of each.

    Args:
        name: The run folder or the weights, as they are to be written.
    """
    name = typed(name)
    return [
        (f"convnextv2 predict {name} IMAGE_OR_FOLDER --out FOLDER", "Segment new images."),
        (f"convnextv2 validate {name} --data_dir OTHER", "Measure it on other label maps."),
        (f"convnextv2 export {name} --format onnx", "Make an artifact to deploy, and test it."),
    ]


def _how(measured: MeasuredMaps) -> str:
    """Say how images were presented to the network."""
    windows = measured.pixel_classifier.windows
    words = "windows" if windows.slide else "whole images"
    if tuple(windows.scales) != (1.0,):
        words += f" at scales {', '.join(f'{scale:g}' for scale in windows.scales)}"
    return words + ", mirrored too" * windows.flip


def _examples(measured: MeasuredMaps) -> list[SegmentedImage]:
    """Show the worst images."""
    examples = [read_example(partial(_example, measured, score.index)) for score in measured.worst]
    return [example for example in examples if example is not None]


def _example(measured: MeasuredMaps, index: int) -> SegmentedImage:
    source, pixel_classifier = measured.source, measured.pixel_classifier
    how = pixel_classifier.preprocessing
    pixels = source.pixels(index, how.channels, how.value_range)
    return segmented_image(
        pixels,
        source.annotation(index),
        pixel_classifier(pixels),
        name=Path(source.names[index]).name,
        class_names=source.class_names,
    )
