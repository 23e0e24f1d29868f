"""Publish a model on the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

import convnextv2
from convnextv2.console import print_json
from convnextv2.data.output_path import check_outside_data
from convnextv2.deploy.artifact import is_artifact
from convnextv2.deploy.hub.browser import missing_packages
from convnextv2.deploy.hub.folder import WrittenFolder, read_facts, write_folder
from convnextv2.deploy.hub.licence import is_known, licence_id
from convnextv2.deploy.hub.upload import Uploader, check_repository
from convnextv2.errors import CheckpointError, MissingPackageError, RecipeError
from convnextv2.files import system_scratch
from convnextv2.find import find_weights, open_run_weights, recipe_of
from convnextv2.lock import building
from convnextv2.recipe.options import takes
from convnextv2.text import plain
from convnextv2.verbs.options.weights import PushOptions
from convnextv2.weights.opened import Weights


@takes(PushOptions)
def push(options: PushOptions) -> str:
    """Write a model as a repository of the Hugging Face Hub, and upload it.

    The repository has the weights and their configuration for transformers or timm, a card with the
    licence and the figures, and ONNX files for transformers.js. A push that was interrupted can be
    repeated. HF_ENDPOINT and HF_TOKEN work as they do for huggingface_hub.

    Returns:
        The address of the repository, or the folder if `dry_run` is set.

    Raises:
        RecipeError: Options contradict each other, or the licence of the weights forbids one.
        CheckpointError: The model cannot be written in this format.
        ServerError: There is no token, or the Hub refuses or cannot be reached.
        MissingPackageError: A package that is needed is not installed.
    """
    check_repository(options.repository)
    _check_out(options)
    if is_artifact(options.run):
        raise CheckpointError(
            f"{options.run}: is an artifact, whose weights other libraries do not read. Give the "
            "run it was made from."
        )
    uploader = None if options.dry_run else Uploader()
    weights = find_weights(options.run)
    if options.out:
        check_outside_data(options.out, recipe_of(weights))
    opened = open_run_weights(weights)
    for line in opened.lines():
        print(line)
    out = Path(options.out) if options.out else None
    with building(out) if out else system_scratch("push") as temporary:
        place = temporary / "repository"
        folder = _write(options, opened, place)
        for line in folder.lines:
            print(plain(line))
        files = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
        url = ""
        if uploader is not None:
            url = uploader.upload(
                place,
                options.repository,
                private=not options.public,
                revision=options.revision,
                message=f"{opened.description.model} by convnextv2 {convnextv2.__version__}",
            )
            print(f"Pushed: {url}")
        if out is not None:  # only now, so that a failed push can be repeated as it is
            os.replace(place, out)
            print(f"Written: {out}")
    print_json(
        {
            "repository": options.repository,
            "url": url,
            "folder": str(options.out),
            "format": options.to,
            "files": files,
            "license": folder.facts.licence,
            "base_model": folder.facts.base_model,
        }
    )
    return url or str(options.out)


def _check_out(options: PushOptions) -> None:
    """Check before any work is done that the folder can be kept where the user wants it."""
    out = Path(options.out)
    if options.dry_run and not options.out:
        raise RecipeError("dry_run = True: writes the folder only. Say where with --out FOLDER.")
    if options.out and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"out = {out}: exists already. Choose another name, or delete it.")


def _write(options: PushOptions, opened: Weights, place: Path) -> WrittenFolder:
    """Write the folder, and print what the card lacks."""
    licence = licence_id(opened.provenance(), opened.origin.notice, options.license)
    facts = read_facts(
        opened,
        options.repository,
        options.to,
        licence=licence,
        about=options.about,
        made_with=convnextv2.__version__,
    )
    with_onnx = _has_onnx(options, opened)
    if not licence:
        print("The card names no licence. Choose one with --license, such as apache-2.0.")
    elif not is_known(licence):
        print(f"{plain(licence)} is not a licence of the Hub: the card says other, with that name.")
    if not options.about:
        print("The card says that no use is stated. Say what the model is for with --about TEXT.")
    return write_folder(opened, facts, place, allow_drift=options.allow_drift, with_onnx=with_onnx)


def _has_onnx(options: PushOptions, opened: Weights) -> bool:
    """Decide whether to add ONNX files for transformers.js, and print why not."""
    if options.onnx == "off":
        return False
    missing = missing_packages()
    why = ""
    if options.to != "transformers":
        why = "transformers.js reads repositories for transformers only"
    elif opened.description.kind != "classifier":
        why = "transformers.js has no pipeline for an encoder"
    elif missing and options.onnx == "on":
        raise MissingPackageError(missing[0], "export")
    elif missing:
        why = f"{', '.join(missing)} not installed (extra: export)"
    if why and options.onnx == "on":
        raise RecipeError(f"onnx = on: {why}. Leave onnx out.")
    if why:
        print(f"No ONNX files for transformers.js: {why}.")
    return not why
