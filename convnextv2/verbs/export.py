"""Export a model to an artifact that has been measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from convnextv2.console import answer
from convnextv2.data.loader import EvaluationLoader
from convnextv2.data.notices import left_out_line
from convnextv2.data.output_path import check_outside_data
from convnextv2.data.source import Source
from convnextv2.data.sources import find_sources
from convnextv2.data.transforms import BatchTransform, EvalTransform
from convnextv2.data.workers import resolve_workers
from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.deploy.coverage import build_coverage_fit
from convnextv2.deploy.export import Evidence, Form, ModelFacts, export_artifact
from convnextv2.deploy.formats import check_format
from convnextv2.deploy.graph import Outputs
from convnextv2.deploy.repository import check_layout, write_repository
from convnextv2.errors import ArtifactError, DataError, RecipeError, RunError
from convnextv2.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from convnextv2.evaluation.prior import image_shares, meaning, use_prior
from convnextv2.evaluation.thresholds import calibrated_thresholds
from convnextv2.files import system_scratch
from convnextv2.find import find_weights, open_run_weights, recipe_of, run_of
from convnextv2.inference.scorer import check_own_prior
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.places import check_place
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.recipe.prior import Prior
from convnextv2.run import Run
from convnextv2.tasks.supervised.rows import labelled_images
from convnextv2.text import counted, typed
from convnextv2.verbs.export_dense import export_dense
from convnextv2.verbs.options.weights import ExportOptions
from convnextv2.weights.description import DENSE_KINDS, Description
from convnextv2.weights.hub import repository_of
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore


@takes(ExportOptions)
def export(options: ExportOptions) -> Path:
    """Write an artifact: the model in another format, with everything that is needed to use it.

    The artifact holds the preprocessing, the class names, and a certificate that compares it with
    the PyTorch model. If an artifact is given in place of a run, it is written in another layout.

    `data_dir` names images to measure on in place of those of the run. `batch_size` is the batch
    size in the comparison of speeds.

    Returns:
        The artifact's folder.
    """
    if options.input == "pixels" and options.outputs == "backbone":
        raise RecipeError(
            "input = pixels: works only with outputs classifier or features. Use input images for "
            "a backbone."
        )
    if options.prior != "trained" and options.outputs != "classifier":
        raise RecipeError(
            f"prior = {options.prior}: is about the probabilities of a classifier. Leave prior "
            "out, or use outputs classifier."
        )
    if options.coverage is not None and options.outputs != "classifier":
        raise RecipeError(
            f"coverage = {options.coverage:g}: is about the classes of images. Leave coverage out, "
            "or use outputs classifier."
        )
    run, layout = options.run, options.layout
    root = Path(options.out or "model_repository")
    if is_artifact(run):
        if layout == "folder":
            raise ArtifactError(
                f"{run}: is an artifact already. Give the run it was made from, or layout triton "
                "or ovms."
            )
        artifact = open_artifact(run)
        artifact.check()
        check_own_prior(artifact, options.prior)
        if options.coverage is not None:
            raise RecipeError(
                f"coverage = {options.coverage:g}: {run} is an artifact, which is not changed. "
                "Leave coverage out, or export the run again with it."
            )
        return _lay_out(artifact, layout, root, options.name or Path(run).resolve().name)

    weights = find_weights(run)
    owner = run_of(weights)
    recipe, notes = options.recipe(owner.path / "recipe.yaml" if owner else None)
    for note in notes:
        print(note)
    name = options.name or (owner.path.resolve().name if owner else _name_of(weights))
    folder = _folder(options, weights, owner) if layout == "folder" else root
    is_own = owner is not None and recipe.data_dir == owner.recipe.data_dir
    check_outside_data(folder, None if is_own else recipe, recipe_of(weights))
    if layout != "folder":
        check_layout(layout, options.format, root, name)
        with system_scratch("export") as temporary:
            artifact = _export(options, recipe, weights, temporary / "artifact")
            return _lay_out(artifact, layout, root, name)
    check_place(folder)
    artifact = _export(options, recipe, weights, folder)
    print(f"Artifact: {artifact.path}")
    answer(_answer(artifact.path, artifact))
    return artifact.path


def _folder(options: ExportOptions, weights: Path, owner: Run | None) -> Path:
    """Choose the folder of the artifact, and check that it may be written."""
    form = f"{options.format}-{options.precision}"
    folder = Path(options.out or _default_folder(weights, owner, form, options.outputs))
    if folder.exists() and not options.overwrite:
        raise RunError(
            f"{folder}: exists already. Use --overwrite to replace it, or another folder for out."
        )
    if folder.exists() and not is_artifact(folder):
        raise RunError(
            f"{folder}: is not an artifact, so it is not overwritten. Choose another folder for "
            "out."
        )
    return folder


def _export(options: ExportOptions, recipe: Recipe, weights: Path, folder: Path) -> Artifact:
    """Write the artifact into a folder, measure it, and print its certificate."""
    opened = open_run_weights(weights)
    for line in opened.lines():
        print(line)
    if opened.description.kind in DENSE_KINDS and options.outputs == "classifier":
        return export_dense(options, recipe, opened, folder)
    check_format(options.format, options.precision, to_write=True)
    model, description = _exported(opened, options.prior)
    if options.coverage is not None and description.kind != "classifier":
        raise RecipeError(
            f"coverage = {options.coverage:g}: is about models that give an image one class, and "
            f"{weights} is of kind {description.kind}. Leave coverage out."
        )
    if options.prior != "trained":
        print(meaning(description.balance))
    evidence = _evidence(weights, description, recipe, options.images, options.seconds)
    temperature = _temperature(model, evidence, description) if options.calibrate else 1.0
    outputs: Outputs = options.outputs
    if outputs == "classifier" and description.kind == "multi_label":
        outputs = "multi_label"
    form = Form(options.format, options.precision, outputs, options.input, options.dynamic_size)
    fit_unknown = None
    if options.coverage is not None:
        how = Preprocessing.read(description.preprocessing)
        normalise = BatchTransform(how.mean, how.std).normalise
        fit_unknown = build_coverage_fit(options.coverage, form, evidence, temperature, normalise)
    print(
        f"Exporting to {form.format}, {form.precision}; measured on "
        f"{counted(len(evidence.pixels), 'image(s)')} ({evidence.origin})."
    )
    thresholds: list[float] = []
    if outputs == "multi_label":
        thresholds = calibrated_thresholds(description.thresholds, temperature)
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
    print(_summary(artifact))
    if (unknown := artifact.unknown()) is not None:
        print(
            f"coverage     {unknown.about.coverage:.2%}, fitted on "
            f"{counted(unknown.about.images, 'image(s)')}. Test it on others: convnextv2 validate "
            f"{typed(artifact.path)} --coverage {unknown.about.coverage:g} --data_dir OTHERS"
        )
    return artifact


def _temperature(model: ConvNeXtV2, evidence: Evidence, description: Description) -> float:
    """Fit the temperature, and print it."""
    temperature = _calibrated(model, evidence, description)
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


def _exported(opened: Weights, prior: Prior) -> tuple[ConvNeXtV2, Description]:
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


def _default_folder(weights: Path, owner: Run | None, form: str, outputs: str) -> Path:
    """Return the usual folder for an artifact: in the run, or beside the weights file.

    Nothing is written to the cache of the Hub: an artifact of weights there goes to the working
    folder.
    """
    form = form if outputs == "classifier" else f"{form}-{outputs}"
    if owner:
        return owner.path / "artifacts" / form
    if _is_of_hub(weights):
        return Path(f"{_name_of(weights)}-{form}")
    return weights.with_name(f"{weights.stem}-{form}")


def _is_of_hub(weights: Path) -> bool:
    return bool(repository_of(weights) or repository_of(weights.parent))


def _name_of(weights: Path) -> str:
    """Return the name of the weights: that of the repository on the Hub, else that of the file.

    The folders in the Hub's cache are named after commits.
    """
    repository = repository_of(weights) or repository_of(weights.parent)
    return repository.rpartition("/")[2] if repository else weights.stem


def _lay_out(artifact: Artifact, layout: str, root: Path, name: str) -> Path:
    version = write_repository(artifact, layout, root, name)
    server = "Triton" if layout == "triton" else "OpenVINO Model Server"
    print(f"Model repository of {server}: {version}")
    answer(_answer(version, artifact))
    return version


def _answer(path: Path, artifact: Artifact) -> dict[str, Any]:
    """Return the answer as `verbs.answers.weights.Exported` describes it."""
    card = artifact.card
    return {
        "path": str(path),
        "format": card.format,
        "precision": card.precision,
        "input": card.input,
        "outputs": card.outputs,
        "sha256": artifact.sha256,
        "licence": card.notice,
        "certificate": artifact.certificate,
    }


def _evidence(
    weights: Path, description: Description, recipe: Recipe, most: int, seconds: float
) -> Evidence:
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
    return Evidence(pixels, targets, origin, recipe.images_per_batch(16), seconds)


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


def _calibrated(model: torch.nn.Module, evidence: Evidence, description: Description) -> float:
    known = (
        evidence.targets >= 0 if evidence.targets is not None else torch.zeros(0, dtype=torch.bool)
    )
    if description.kind not in ("classifier", "multi_label") or not known.any():
        raise DataError(
            "calibrate = True: needs labelled validation images. Give them with data_dir."
        )
    assert evidence.targets is not None
    transform = EvalTransform(Preprocessing.read(description.preprocessing))
    normalise = BatchTransform(transform.preprocessing.mean, transform.preprocessing.std).normalise
    with torch.inference_mode():
        logits = torch.cat([model(normalise(part)) for part in evidence.pixels.split(64)])
    if description.kind == "multi_label":
        return fit_temperature(logits, evidence.targets)
    targets = evidence.targets[known]
    shares = image_shares(description.balance, targets.numpy())
    weights = None if shares is None else torch.from_numpy(shares)
    return fit_temperature(logits[known], targets, weights)


def _summary(artifact: Artifact) -> str:
    """Write the certificate for people."""
    found = artifact.certificate
    lines = []
    for what in ("real", "adversarial", "other_size"):
        if part := found.get(what):
            agrees = (
                f"; top-1 agrees on {part['top1_agreement']:.2%}"
                if "top1_agreement" in part
                else ""
            )
            if "labels_agreement" in part:
                agrees = (
                    f"; probabilities off by at most {part['probs']['max_difference']:.2g}, the "
                    f"labels agree to {part['labels_agreement']:.2%}"
                )
            lines.append(
                f"{what.replace('_', ' '):<12} {part['images']:4} images: {found['output']} off by "
                f"at most {part['max_difference']:.2g}, on average {part['mean_difference']:.2g} "
                f"(largest {part['scale']:.3g}){agrees}."
            )
    if accuracy := found.get("accuracy"):
        lines.append(
            f"top-1        PyTorch {accuracy['pytorch_top1']:.2%}, "
            f"artifact {accuracy['artifact_top1']:.2%}."
        )
    if labels := found.get("labels"):
        lines.append(
            f"F1 (micro)   PyTorch {labels['pytorch_f1_micro']:.2%}, "
            f"artifact {labels['artifact_f1_micro']:.2%}."
        )
    speed = found["speed"]
    lines.append(
        f"images/s     PyTorch {speed['pytorch_images_per_second']:.1f}, "
        f"artifact {speed['artifact_images_per_second']:.1f} "
        f"({speed['ratio']:.2f} times), batch {speed['batch']}, threads: {speed['threads']}."
    )
    return "\n".join(lines)
