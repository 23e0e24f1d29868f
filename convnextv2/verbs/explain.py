"""Explain what a classifier answers: maps of images, a map of embeddings, mistakes."""

from __future__ import annotations

from pathlib import Path

from convnextv2.console import print_json, say
from convnextv2.deploy.artifact import is_artifact
from convnextv2.errors import CheckpointError
from convnextv2.evaluation.page import build_page, write_page
from convnextv2.find import find_weights, open_run_weights
from convnextv2.kernels import choice
from convnextv2.places import check_page
from convnextv2.recipe.knobs import Recipe
from convnextv2.recipe.options import takes
from convnextv2.text import plain
from convnextv2.verbs.explain_data import explain_data
from convnextv2.verbs.explain_images import explain_images
from convnextv2.verbs.options.measuring import ExplainOptions
from convnextv2.verbs.options.shared import LABELLED_IMAGES
from convnextv2.weights.description import DENSE_KINDS


@takes(ExplainOptions)
def explain(options: ExplainOptions) -> Path:
    """Write a page that explains what a model answers.

    With images, it shows class activation maps and occlusion maps. Without images, it shows a map
    of the embeddings of labelled images, the most confident mistakes, and the training images that
    are nearest to each. For a pre-training run, it shows the map alone.

    Returns:
        The page.

    Raises:
        RecipeError: A class is not known, or options do not go together.
        CheckpointError: The weights are of another kind.
        DataError: There are no images.
    """
    page = Path(options.out)
    if is_artifact(options.run):
        raise CheckpointError(
            f"{options.run}: is an artifact, which has no gradients. Give the run that it was made "
            "from."
        )
    check_page(page, "explanation.html")
    given, notes = options.recipe()
    choice.choose(given.kernels)
    opened = open_run_weights(find_weights(options.run))
    if opened.description.kind in DENSE_KINDS:
        raise CheckpointError(
            f"{opened.path}: is {opened.description.noun}, whose output already shows where it "
            "sees what. Give a classifier or a pre-training run."
        )
    if idle := _idle(options, given):
        notes.append(f"No effect here: {', '.join(idle)} (only the named images are explained).")
    for line in (*notes, *opened.lines()):
        say(line)
    explained = (explain_images if options.images else explain_data)(opened, options, given)
    title = f"Explanations: {plain(Path(options.run).resolve().name)}"
    sections = explained.sections
    write_page(page, build_page(title, summary=explained.summary, recipe={}, sections=sections))
    say(f"Page: {page}")
    print_json({"page": str(page), "weights": str(opened.path), **explained.answer})
    return page


def _idle(options: ExplainOptions, given: Recipe) -> list[str]:
    """Find what was given and says something about labelled images, if single images are named."""
    if not options.images:
        return []
    knobs = set(LABELLED_IMAGES) & given.model_fields_set
    return [*sorted(knobs), *options.changed("mistakes", "neighbours")]
