"""List the sizes of the network."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from convnextv2.console import say
from convnextv2.errors import RecipeError
from convnextv2.model.convnext import SIZES, create_model
from convnextv2.recipe.options import takes
from convnextv2.verbs.options import ModelsOptions


@takes(ModelsOptions)
def models(options: ModelsOptions) -> list[dict[str, Any]]:
    """Print the sizes that match a pattern, with depths, widths, parameters and multiply-adds.

    Parameters are counted with 1000 classes. Multiply-adds are those of one forward pass. They are
    counted on the network itself, on the meta device.

    Returns:
        The same figures as a list, one dictionary for each size.
    """
    pattern, image_size = options.pattern, options.image_size
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
    return rows
