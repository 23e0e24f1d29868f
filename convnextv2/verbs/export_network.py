"""Export a classifier, or the encoder of any model, to an artifact that has been measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.notices import left_out_line
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.data.workers import resolve_workers
from convnextv2.deploy.artifact import Artifact
from convnextv2.deploy.certificate_text import classifier_summary
from convnextv2.deploy.coverage import build_coverage_fit
from convnextv2.deploy.export import Form, ModelFacts, PixelEvidence, export_artifact
from convnextv2.deploy.formats import check_format
from convnextv2.deploy.graph import Outputs
from convnextv2.errors import DataError, RecipeError
from convnextv2.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from convnextv2.evaluation.prior import image_shares, meaning, use_prior
from convnextv2.evaluation.thresholds import calibrated_thresholds
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.prior import Prior
from convnextv2.tasks.supervised.rows import labelled_images
from convnextv2.text import counted, typed
from convnextv2.verbs.options.weights import ExportOptions
from convnextv2.weights.description import Description
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


def export_network(
    options: ExportOptions, recipe: Recipe, opened: Weights, folder: Path
) -> Artifact:
    """Write the artifact of a classifier or an encoder, and print its certificate.

    Args:
        options: The options of the verb.
        recipe: Names the images to measure on.
        opened: The weights.
        folder: The artifact's folder.
    """
    check_format(options.format, options.precision, to_write=True)
    model, description = _network(opened, options.prior)
    if options.coverage is not None and description.kind != "classifier":
        raise RecipeError(
            f"coverage = {options.coverage:g}: is about models that give an image one class, and "
            f"{opened.path} is of kind {description.kind}. Leave coverage out."
        )
    if options.prior != "trained":
        print(meaning(description.balance))
    evidence = _evidence(opened.path, description, recipe, options.images, options.seconds)
    normalise = _normalisation(description)
    temperature = _fit_temperature(model, evidence, description) if options.calibrate else 1.0
    outputs: Outputs = options.outputs
    thresholds: list[float] = []
    if outputs == "classifier" and description.kind == "multi_label":
        outputs = "multi_label"
        thresholds = calibrated_thresholds(description.thresholds, temperature)
    form = Form(options.format, options.precision, outputs, options.input, options.dynamic_size)
    fit_unknown = None
    if options.coverage is not None:
        fit_unknown = build_coverage_fit(options.coverage, form, evidence, temperature, normalise)
    print(
        f"Exporting to {form.format}, {form.precision}; measured on "
        f"{counted(len(evidence.pixels), 'image(s)')} ({evidence.origin})."
    )
    facts = ModelFacts.of_weights(
        opened,
        description,
        thresholds=thresholds,
        temperature=temperature,
        balance=description.balance,
    )
    artifact = export_artifact(
        model,
        form,
        folder,
        evidence,
        facts,
        fit_unknown=fit_unknown,
        overwrite=options.overwrite,
    )
    print(classifier_summary(artifact.certificate))
    if (unknown := artifact.unknown()) is not None:
        print(
            f"coverage     {unknown.about.coverage:.2%}, fitted on "
            f"{counted(unknown.about.images, 'image(s)')}. Test it on others: convnextv2 validate "
            f"{typed(artifact.path)} --coverage {unknown.about.coverage:g} --data_dir OTHERS"
        )
    return artifact


def _network(opened: Weights, prior: Prior) -> tuple[ConvNeXtV2, Description]:
    """Return the network that is exported, with its prior, and its description.

    If the model is not a classifier, its encoder is exported.
    """
    model, description = restore(opened), opened.description
    how = opened.preprocessing.to_json()  # raises an error if the weights do not state it
    if prior != "trained" and description.kind != "classifier":
        raise RecipeError(f"prior = {prior}: {opened.path} is not a classifier. Leave prior out.")
    if not isinstance(model, ConvNeXtV2):
        model = model.encoder  # the rest is for another task
        description = Description("encoder", description.model, model.arguments, preprocessing=how)
    return model.eval(), use_prior(model, description, prior, str(opened.path))


def _evidence(
    weights: Path, description: Description, recipe: Recipe, most: int, seconds: float
) -> PixelEvidence:
    """Read the images to measure on: the recipe's validation images, else the bundled ones.

    They are labelled if the model knows their classes.
    """
    source, origin = _images(weights, description, recipe)
    source = source.spread(most)
    transform = EvalTransform(Preprocessing.read(description.preprocessing))
    loader = EvaluationLoader(
        source,
        transform,
        batch_size=64,
        channels=transform.preprocessing.channels,
        workers=resolve_workers(recipe.workers)[0] if len(source) > 256 else 0,
        bad_images=recipe.bad_images,
    )
    batches = list(loader)
    if not batches:
        raise DataError(f"{origin}: none of these images can be read. Give others with data_dir.")
    if loader.skipped:
        print(left_out_line(loader.skipped))
    targets = (
        torch.cat([batch.targets for batch in batches]) if source.targets is not None else None
    )
    pixels = torch.cat([batch.pixels for batch in batches])
    return PixelEvidence(pixels, targets, origin, recipe.images_per_batch(16), seconds)


def _images(weights: Path, description: Description, recipe: Recipe) -> tuple[Source, str]:
    if not recipe.data_dir and not recipe.dataset:
        bundled = recipe.model_copy(update={"dataset": "bundled"})
        channels = description.preprocessing["channels"]
        grey = "" if channels in (1, 3) else f", grey in each of the {channels} channels"
        source = find_sources(bundled, labelled=False)[0]
        origin = f"the bundled images{grey}, which the model may not know"
        return replace(source, targets=None), origin  # their classes are not rows of the model
    origin = recipe.data_dir or recipe.dataset
    if description.kind in ("classifier", "multi_label"):
        try:
            source, _ = labelled_images(weights, description, recipe)
            return source, f"validation images of {origin}"
        except DataError as error:
            print(f"No labelled validation images ({error}): accuracy is not measured.")
    source = find_sources(recipe, labelled=False)[0]
    return replace(source, targets=None), f"images of {origin}"


def _normalisation(description: Description) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that turns pixels into the images of the network."""
    how = Preprocessing.read(description.preprocessing)
    return normaliser(how)


def _fit_temperature(model: ConvNeXtV2, evidence: PixelEvidence, description: Description) -> float:
    """Fit the temperature to the labelled images, and print it.

    Raises:
        DataError: No image has a label.
    """
    targets = evidence.targets
    known = None if targets is None else targets >= 0
    if targets is None or known is None or not known.any():
        raise DataError(
            "calibrate = True: needs labelled validation images. Give them with data_dir."
        )
    normalise = _normalisation(description)
    with torch.inference_mode():
        logits = torch.cat([model(normalise(part)) for part in evidence.pixels.split(64)])
    if description.kind == "multi_label":
        temperature = fit_temperature(logits, targets)
    else:
        shares = image_shares(description.balance, targets[known].numpy())
        weights = None if shares is None else torch.from_numpy(shares)
        temperature = fit_temperature(logits[known], targets[known], weights)
    print(
        f"Temperature {temperature:g}, fitted on {counted(len(evidence.pixels), 'image(s)')} "
        f"({evidence.origin})."
    )
    if temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        print(
            f"{temperature:g} is the end of the searched range, so the probabilities stay "
            "badly calibrated. Train the model for longer, or give more images."
        )
    return temperature
