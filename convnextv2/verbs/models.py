"""List the sizes of the network."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatch
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from convnextv2.console import print_json, say
from convnextv2.errors import RecipeError
from convnextv2.model.convnext import SIZES, create_model
from convnextv2.recipe.options import takes
from convnextv2.verbs.options.weights import ModelsOptions
from convnextv2.weights.catalog import CATALOG


@takes(ModelsOptions)
def models(options: ModelsOptions) -> list[dict[str, Any]]:
    """Print the sizes that match a pattern, with depths, widths, parameters and multiply-adds.

    Parameters are counted with 1000 classes. Multiply-adds are those of one forward pass, counted
    by running the network on the meta device. With `weights`, public weights are listed in place of
    sizes; their accuracies are those that were published.

    Returns:
        The same figures as a list, one dictionary for each size or for each weights file.
    """
    pattern, image_size = options.pattern, options.image_size
    if options.weights:
        return _public_weights(pattern)
    names = [name for name in SIZES if fnmatch(name, pattern) or pattern in name]
    if not names:
        raise RecipeError(f"pattern = {pattern!r}: matches none of {', '.join(SIZES)}.")
    rows = []
    say(
        f"{'model':<18}{'depths':<15}{'channels':<25}{'parameters':>12}"
        f"{f'GMACs at {image_size} px':>20}"
    )
    for name in names:
        depths, dims = SIZES[name]
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model = create_model(name)
            model(torch.empty(1, 3, image_size, image_size))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        gmacs = counter.get_total_flops() / 2e9
        rows.append(
            {
                "model": name,
                "depths": depths,
                "dims": dims,
                "parameters": parameters,
                "gmacs": gmacs,
            }
        )
        say(
            f"{name:<18}{', '.join(map(str, depths)):<15}{', '.join(map(str, dims)):<25}"
            f"{parameters:>12,}{gmacs:>20.2f}"
        )
    print_json(rows)
    return rows


def _public_weights(pattern: str) -> list[dict[str, Any]]:
    """Print and return the public weights whose name matches a pattern."""
    found = [w for w in CATALOG if fnmatch(w.name, pattern) or pattern in w.name]
    if not found:
        raise RecipeError(
            f"pattern = {pattern!r}: matches no public weights. Leave it out to see them all."
        )
    width = max(len(weights.name) for weights in found) + 2
    say(f"{'name':<{width}}{'M':>8}{'top-1 %':>9}{'px':>5}  {'licence':<15}note")
    for weights in found:
        top1 = f"{weights.top1:.2f}" if weights.top1 else "-"
        note = weights.note if weights.allows_commerce else f"no commercial use. {weights.note}"
        say(
            f"{weights.name:<{width}}{weights.parameters_m:>8.2f}{top1:>9}"
            f"{weights.image_size:>5}  {weights.licence:<15}{note.strip()}".rstrip()
        )
    say(
        "Top-1 on ImageNet-1K as timm publishes it (results-imagenet.csv). "
        "`--init NAME` downloads from timm/NAME on the Hugging Face Hub; `--init pretrained` "
        "takes the first of the model's size that allows commercial use."
    )
    rows = [asdict(weights) | {"repository": weights.repository} for weights in found]
    print_json(rows)
    return rows
