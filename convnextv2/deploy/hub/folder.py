"""Write a Hub repository: weights, configuration, card, and files for transformers.js."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convnextv2.data.sources import find_sources
from convnextv2.data.transforms import EvalTransform, normaliser
from convnextv2.deploy.hub.browser import FILES, Agreement, write_browser_files
from convnextv2.deploy.hub.card import CardFacts, write_card
from convnextv2.files import write_text
from convnextv2.find import run_of
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.read import read_recipe
from convnextv2.run import Run
from convnextv2.weights.catalog import proposed_start, public_weights
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.hub import is_hub_name, repository_of
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import restore

_COMPARED = 32
"""Images on which ONNX files are compared with the model."""


@dataclass(frozen=True)
class WrittenFolder:
    """The folder that was written.

    Attributes:
        facts: The content of its card.
        lines: Lines for the user.
    """

    facts: CardFacts
    lines: list[str]


def write_folder(
    weights: Weights,
    facts: CardFacts,
    out: Path,
    *,
    allow_drift: bool = False,
    with_onnx: bool = False,
) -> WrittenFolder:
    """Write all files of a repository.

    Args:
        weights: The weights.
        facts: The content of the card, without the entries about ONNX.
        out: The folder, which must be empty or not exist.
        allow_drift: Whether to write weights that give other logits in the target library.
        with_onnx: Whether to write ONNX files for transformers.js as well.

    Returns:
        The content of the card, and lines for the user.

    Raises:
        CheckpointError: The target library cannot hold the model; see `convert_weights`.
    """
    lines = convert_weights(weights, facts.library, out, allow_drift=allow_drift)
    lines = lines[:-1]  # the last one names the folder, which may be a temporary one
    if with_onnx:
        model, images = _model_and_images(weights)
        line = _agreement(write_browser_files(model, out / "onnx", images))
        lines.append(line)
        facts = replace(facts, has_onnx=True, onnx_line=line)
    write_text(out / "README.md", write_card(facts))
    return WrittenFolder(facts, lines)


def _model_and_images(weights: Weights) -> tuple[ConvNeXtV2, Tensor]:
    """Return the classifier, and normalised bundled images on which its files are compared."""
    model = restore(weights)
    assert isinstance(model, ConvNeXtV2)
    transform = EvalTransform(weights.preprocessing)
    how = transform.preprocessing
    bundled = find_sources(read_recipe({"dataset": "bundled"})[0], labelled=False)[0]
    pixels = [transform(bundled.pixels(i, how.channels)) for i in range(_COMPARED)]
    normalise = normaliser(how)
    return model.float().eval(), normalise(torch.stack(pixels)).contiguous()


def _agreement(found: dict[str, Agreement]) -> str:
    parts = [
        f"`{name}` ({FILES[name]}) has the same most probable class on {one.same_top1:.0%} and "
        f"probabilities that differ by at most {one.max_difference:.1g}"
        for name, one in found.items()
    ]
    images = next(iter(found.values())).images
    return f"On {images} images that come with convnextv2, {'; '.join(parts)}."


def read_facts(
    weights: Weights, repository: str, library: str, *, licence: str, about: str, made_with: str
) -> CardFacts:
    """Collect the content of the card from weights and from their run.

    Args:
        weights: The weights.
        repository: OWNER/NAME.
        library: transformers or timm.
        licence: The identifier of the licence; empty if nothing is known.
        about: The purpose of the model, in the user's words.
        made_with: The version of this package.

    Raises:
        CheckpointError: The preprocessing of the weights is unknown.
    """
    description, run = weights.description, run_of(weights.path)
    return CardFacts(
        repository,
        description.model,
        library,
        description.class_names if description.kind == "classifier" else [],
        weights.preprocessing,
        figures=description.training,
        data=_data_name(run),
        licence=licence,
        notice=weights.origin.notice,
        base_model=_base_model(run),
        origins=_origins(weights),
        about=about,
        made_with=made_with,
    )


def _data_name(run: Run | None) -> str:
    """Return the name of a run's data. The folders above them stay private."""
    if run is None:
        return ""
    recipe = run.recipe
    return Path(recipe.data_dir).resolve().name if recipe.data_dir else recipe.dataset


def _base_model(run: Run | None) -> str:
    """Find the Hub repository from which training started, possibly through other runs."""
    for _ in range(100):  # a limit, in case edited recipes form a cycle
        if run is None:
            return ""
        init = run.recipe.init
        if not init or is_hub_name(str(init)):
            return str(init or "")
        known = proposed_start(run.recipe.model) if init == "pretrained" else public_weights(init)
        if known and not Path(init).exists():
            return known.repository
        start = Path(init)
        if repository := repository_of(start) or repository_of(start.parent):
            return repository
        run = Run(start) if (start / "recipe.yaml").is_file() else run_of(start)
    return ""


def _origins(weights: Weights) -> list[str]:
    """Return lines with the hash of the weights, and of the weights they were started from."""
    lines = [f"These weights: sha256 {weights.origin.sha256}."]
    start: Any = weights.description.provenance.get("init")
    while isinstance(start, dict) and start:
        lines.append(
            f"Training started from weights of the format {start.get('format', 'unknown')}, sha256 "
            f"{start.get('sha256', 'unknown')}."
        )
        start = start.get("init")
    return lines
