"""Export a segmentor or a detector to an artifact that has been measured."""

from __future__ import annotations

from pathlib import Path

import torch

from convnextv2.data.dense.map_sources import map_validation_source
from convnextv2.data.dense.object_sources import validation_objects
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.certificate_text import dense_summary
from convnextv2.deploy.dense_card import DetectorCard, SegmentorCard
from convnextv2.deploy.dense_export import export_detector, export_segmentor
from convnextv2.deploy.export import ModelFacts
from convnextv2.distributed import Place
from convnextv2.errors import ArtifactError, DataError, DeviceError, RecipeError
from convnextv2.evaluation.drawing import colour_of
from convnextv2.evaluation.overlay import class_colours
from convnextv2.inference.dense import open_finder
from convnextv2.inference.detector import ObjectFinder
from convnextv2.inference.pixel_classifier import Windows, own_recipe
from convnextv2.model.detector import Detector
from convnextv2.model.upernet import Segmentor
from convnextv2.recipe.knobs import Recipe
from convnextv2.tasks.dense.evidence import SourceEvidence
from convnextv2.tasks.detection.certificate import certify_detector
from convnextv2.tasks.segmentation.certificate import certify_segmentor
from convnextv2.tasks.supervised.own_data import has_own_data
from convnextv2.text import counted
from convnextv2.verbs.options.weights import ExportOptions
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


def check_dense(options: ExportOptions, kind: str) -> None:
    """Check that the options suit an artifact of this kind.

    Args:
        options: The options of the verb.
        kind: One of `DENSE_KINDS`.

    Raises:
        RecipeError: An option is for classifiers only.
        DeviceError: The kind has no artifacts of this precision.
        ArtifactError: The layout has no such artifacts.
    """
    noun = "segmentor" if kind == "segmentation" else "detector"
    if options.input == "pixels":
        raise RecipeError(
            f"input = pixels: images of a {noun} are resized to many sizes outside the graph. "
            "Use input images."
        )
    if options.calibrate:
        raise RecipeError(f"calibrate = True: is for classifiers. Leave it out for a {noun}.")
    if options.prior != "trained":
        raise RecipeError(
            f"prior = {options.prior}: is about the probabilities of a classifier. Leave prior out."
        )
    if options.coverage is not None:
        raise RecipeError(
            f"coverage = {options.coverage:g}: is for classifiers. Leave it out for a {noun}."
        )
    if options.precision == "int8":
        raise DeviceError(
            "precision = int8: such an artifact is checked by the classes of whole images, which a "
            f"{noun} does not predict. Use float32."
        )
    if kind == "detection" and options.layout != "folder":
        raise ArtifactError(
            f"layout = {options.layout}: a detector has up to three parts with code between them, "
            "which that server does not run. Use layout folder, and convnextv2 serve."
        )
    if kind == "detection" and options.dynamic_size:
        print("No effect here: dynamic_size (a detector takes images of any size anyway).")


def export_dense(options: ExportOptions, recipe: Recipe, opened: Weights, folder: Path) -> Artifact:
    """Write the artifact of a segmentor or a detector, and print its certificate.

    Args:
        options: The options of the verb.
        recipe: Names the images to measure on.
        opened: The weights.
        folder: The artifact's folder.
    """
    description = opened.description
    check_dense(options, description.kind)
    facts = ModelFacts.of_weights(opened)
    source, origin = _images(opened, recipe, options.images)
    print(
        f"Exporting to {options.format}, {options.precision}; measured on "
        f"{counted(len(source), 'image(s)')} ({origin})."
    )
    if description.kind == "segmentation":
        artifact = _segmentor(options, opened, folder, facts, source, origin)
    else:
        artifact = _detector(options, opened, folder, facts, source, origin)
    print(dense_summary(artifact.certificate))
    return artifact


def _segmentor(
    options: ExportOptions,
    opened: Weights,
    folder: Path,
    facts: ModelFacts,
    source: Source,
    origin: str,
) -> Artifact:
    model, own = restore(opened), own_recipe(opened.path) or Recipe()
    assert isinstance(model, Segmentor)
    model.eval()
    windows = Windows.of(own)
    more = SegmentorCard(
        palette=class_colours(model.num_classes).tolist(),
        head=dict(model.head_arguments),
        slide=windows.slide,
        test_scales=list(windows.scales),
        test_flip=windows.flip,
        ignore_values=None if own.ignore_values is None else list(own.ignore_values),
        reduce_zero_label=own.reduce_zero_label,
    )
    size = None
    if not options.dynamic_size:
        stride = model.encoder.total_stride
        height, width = (-(-side // stride) * stride for side in opened.preprocessing.image_size)
        size = height, width
        if not windows.slide:
            print(
                f"The run sees whole images; the artifact sees them in windows of {height} x "
                f"{width} px. Set dynamic_size to keep whole images."
            )
    evidence = SourceEvidence(source, origin, options.seconds)
    return export_segmentor(
        model,
        options.format,
        options.precision,
        size,
        folder,
        facts,
        more,
        lambda artifact: certify_segmentor(model, artifact, evidence, windows),
        overwrite=options.overwrite,
    )


def _detector(
    options: ExportOptions,
    opened: Weights,
    folder: Path,
    facts: ModelFacts,
    source: Source,
    origin: str,
) -> Artifact:
    finder: ObjectFinder = open_finder(opened, device="cpu", precision="float32")
    model: Detector = finder.model
    more = DetectorCard(
        palette=[list(colour_of(i)) for i in range(model.num_classes)],
        head=dict(model.head_arguments),
        levels=len(model.levels) + 1,
    )
    evidence = SourceEvidence(source, origin, options.seconds)
    return export_detector(
        model,
        options.format,
        options.precision,
        folder,
        facts,
        more,
        lambda artifact: certify_detector(finder, artifact, evidence),
        overwrite=options.overwrite,
    )


def _images(opened: Weights, recipe: Recipe, most: int) -> tuple[Source, str]:
    """Find the images to measure on: the recipe's validation images, else the bundled ones."""
    source, origin = _found(opened, recipe)
    return source.spread(most), origin


def _found(opened: Weights, recipe: Recipe) -> tuple[Source, str]:
    description = opened.description
    if not recipe.data_dir:
        bundled, _ = find_sources(Recipe(dataset="bundled"), labelled=False)
        return bundled, "the bundled images, which the model may not know"
    names, trained_on = description.class_names, has_own_data(opened.path, recipe)
    try:
        if description.kind == "segmentation":
            place = Place(torch.device("cpu"))
            found = map_validation_source(recipe, names, place, trained_on=trained_on)
        else:
            found = validation_objects(recipe, names, trained_on=trained_on)
        return found, f"validation images of {recipe.data_dir}"
    except DataError as error:
        why = error
    try:
        source = find_sources(recipe, labelled=False)[0]
    except DataError:  # these are annotated images, and the first error says what is wrong
        raise why from None
    figure = "mIoU" if description.kind == "segmentation" else "AP"
    print(f"No annotated validation images ({why}): {figure} is not measured.")
    return source, f"images of {recipe.data_dir}"
