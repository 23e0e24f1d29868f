"""Convert weights of any known format to another format."""

from __future__ import annotations

from pathlib import Path

from convnextv2.console import print_json
from convnextv2.data.output_path import check_outside_data
from convnextv2.find import find_weights, recipe_of
from convnextv2.recipe.options import takes
from convnextv2.text import plain
from convnextv2.verbs.options.weights import ConvertOptions
from convnextv2.weights.convert import convert_weights
from convnextv2.weights.opened import open_weights


@takes(ConvertOptions)
def convert(options: ConvertOptions) -> Path:
    """Write weights in the format of another library.

    Returns:
        The path that was written.
    """
    weights, out = find_weights(options.weights), Path(options.out)
    check_outside_data(out, recipe_of(weights))
    opened = open_weights(weights, average=options.ema)
    made = convert_weights(opened, options.to, out, allow_drift=options.allow_drift)
    lines = [plain(line) for line in opened.lines() + made]
    for line in lines:
        print(line)
    print_json({"path": str(out), "format": options.to, "notes": lines})
    return out
