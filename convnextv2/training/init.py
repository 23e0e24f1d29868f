"""Start from weights: complete the recipe from their description, and load them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convnextv2.console import say
from convnextv2.errors import RecipeError
from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.recipe.channels import channel_mistakes
from convnextv2.recipe.knobs import Recipe, with_inferred
from convnextv2.recipe.pairs import block_mistakes
from convnextv2.recipe.values import show
from convnextv2.run import Run
from convnextv2.training.head import HEAD, start_head
from convnextv2.weights.adapt import load_encoder
from convnextv2.weights.opened import Weights
from convnextv2.weights.restore import check_finite

_INFERRED = (
    *("model", "depths", "dims", "stem_stride", "block", "gelu", "norm_eps", "inner_eps"),
    "in_channels",
    *("value_range", "mean", "std"),
)


def infer_from_run(recipe: Recipe, path: Path) -> Recipe:
    """Complete the recipe of a run that is continued with the values that it inferred at its start.

    Args:
        recipe: The recipe as given. The values that it sets are kept.
        path: The run folder.
    """
    if not (path / "recipe.yaml").is_file():  # the folder is one of MindCV
        return recipe
    own = Run(path).recipe
    names = [name for name in _INFERRED if name not in recipe.model_fields_set]
    return with_inferred(recipe, {name: getattr(own, name) for name in names})


def infer_from_weights(recipe: Recipe, weights: Weights) -> tuple[Recipe, list[str]]:
    """Take from the initial weights what the recipe does not set.

    This is the size of the network, its channels, its stem, the forms of block and GELU, the
    epsilons, and the statistics of the images.

    Args:
        recipe: The recipe of the run.
        weights: The weights to start from.

    Returns:
        The recipe, and a message about the knobs that were added.

    Raises:
        RecipeError: A knob does not suit the number of channels or the form of the blocks.
    """
    description = weights.description
    arguments: dict[str, Any] = {"inner_eps": 1e-6, "block": "v2"} | description.arguments
    inferred: dict[str, Any] = {"model": description.model}
    if description.model == "custom":
        inferred |= {"depths": tuple(arguments["depths"]), "dims": tuple(arguments["dims"])}
    same = ("stem_stride", "block", "gelu", "norm_eps", "inner_eps")
    inferred |= {name: arguments[name] for name in same}
    inferred["in_channels"] = arguments["in_channels"]
    inferred |= _statistics(recipe, description.preprocessing)
    new = {
        name: value
        for name, value in inferred.items()
        if name not in recipe.model_fields_set and value != getattr(recipe, name)
    }
    if not new.keys() & {"model"}:
        new = {name: value for name, value in new.items() if name not in ("depths", "dims")}
    recipe = with_inferred(recipe, new)
    if mistakes := [*channel_mistakes(recipe), *block_mistakes(recipe)]:
        raise RecipeError("\n".join(mistakes))
    if not new:
        return recipe, []
    return recipe, [
        f"From init: {', '.join(f'{name} {show(value)}' for name, value in new.items())}."
    ]


def _statistics(recipe: Recipe, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics that the weights were made with.

    Args:
        recipe: The recipe. Its own numbers take precedence. If it sets only one of mean and std,
            neither is taken from the weights.
        preprocessing: The preprocessing in the description of the weights.

    Returns:
        Values of value_range, mean and std, as far as they apply to the recipe's images.
    """
    found: dict[str, Any] = {}
    if not preprocessing:
        return found
    if preprocessing.get("value_range"):
        found["value_range"] = tuple(preprocessing["value_range"])
    same = (
        "in_channels" not in recipe.model_fields_set
        or recipe.in_channels == preprocessing["channels"]
    )
    if same and not recipe.model_fields_set & {"mean", "std"}:
        found |= {name: tuple(preprocessing[name]) for name in ("mean", "std")}
    return found


def load_init(
    model: ConvNeXtV2,
    weights: Weights,
    *,
    classes: Sequence[str],
    class_order: str,
    named: int,
    keeps_classes: bool,
) -> dict[str, Any]:
    """Load weights into a network, and print what was done with each.

    Args:
        model: The network, with random weights.
        weights: The weights to start from.
        classes: The names of the rows of the network's head; empty without a head.
        class_order: The knob with that name. It says how the rows of the weights' head are matched.
        named: The number of rows that are classes of the data.
        keeps_classes: Whether the head is known to have the same classes in the same order.

    Returns:
        The provenance of the model that is trained. The licence of the weights applies to it too.
    """
    for line in weights.lines():
        say(line)
    check_made_for(weights, model)
    tensors, left_out = weights.tensors, weights.left_out
    if model.head is not None and HEAD[0] in tensors and not keeps_classes:
        head, lines = start_head(model.head, weights, classes, class_order, named=named)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEAD} | head
        if not head:
            rows, own = len(weights.tensors[HEAD[0]]), model.num_classes
            why = "a head of other classes"
            why = f"a head of {rows} classes, the model has {own}" if rows != own else why
            left_out = [*left_out, *((name, why) for name in HEAD)]
        for line in lines:
            say(line)
    report = load_encoder(model, tensors, source=weights.origin.path)
    for line in replace(report, left_out=report.left_out + left_out).lines():
        say(line)
    return {"init": weights.provenance(), "notice": weights.origin.notice}


def check_made_for(weights: Weights, model: ConvNeXtV2) -> None:
    """Check that weights are finite, and print a line if they were made for other arithmetic.

    Args:
        weights: The weights to start from.
        model: The classifier or the encoder that takes them.

    Raises:
        CheckpointError: A tensor holds NaN or infinite numbers.
    """
    check_finite(weights)
    theirs, ours = (
        {"inner_eps": 1e-6} | arguments
        for arguments in (weights.description.arguments, model.arguments)
    )
    for name in ("gelu", "norm_eps", "inner_eps", "grn_scope"):
        if theirs[name] != ours[name]:
            say(
                f"  {name} = {ours[name]}, but these weights were made with {theirs[name]}, so "
                "the features will differ."
            )
