"""The titles of reports."""

from __future__ import annotations

from pathlib import Path

from convnextv2.recipe.knobs import Recipe


def title(recipe: Recipe) -> str:
    """Name the network and the data of a recipe, for the title of a report."""
    network = recipe.model.replace("convnextv2_", "ConvNeXt V2 ").replace(
        "custom", f"ConvNeXt V2 {recipe.dims}"
    )
    data = Path(recipe.data_dir).name or {"bundled": "the bundled Fashion-MNIST images"}.get(
        recipe.dataset, recipe.dataset
    )
    return f"{network} on {data}"
