"""Export a model to an artifact that has been measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convnextv2.console import print_json
from convnextv2.data.output_path import check_outside_data
from convnextv2.deploy.artifact import Artifact, is_artifact, open_artifact
from convnextv2.deploy.repository import check_layout, write_repository
from convnextv2.errors import ArtifactError, RecipeError, RunError
from convnextv2.files import system_scratch
from convnextv2.find import find_weights, open_run_weights, recipe_of, run_of
from convnextv2.inference.scorer import check_own_prior
from convnextv2.places import check_place
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.run import Run
from convnextv2.verbs.export_dense import export_dense
from convnextv2.verbs.export_network import export_network
from convnextv2.verbs.options.weights import ExportOptions
from convnextv2.weights.description import DENSE_KINDS
from convnextv2.weights.hub import repository_of


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
    _check(options)
    layout, root = options.layout, Path(options.out or "model_repository")
    if is_artifact(options.run):
        return _lay_out_again(options, root)
    weights = find_weights(options.run)
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
    print_json(_answer(artifact.path, artifact))
    return artifact.path


def _check(options: ExportOptions) -> None:
    """Check that the options suit each other."""
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


def _lay_out_again(options: ExportOptions, root: Path) -> Path:
    """Write an artifact that exists in the layout of a model repository."""
    run = options.run
    if options.layout == "folder":
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
    return _lay_out(artifact, options.layout, root, options.name or Path(run).resolve().name)


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
    return export_network(options, recipe, opened, folder)


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
    print_json(_answer(version, artifact))
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
