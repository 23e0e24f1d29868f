"""Build the network that a recipe describes."""

from __future__ import annotations

from convnextv2.errors import RecipeError
from convnextv2.model.convnext import SIZES, ConvNeXtV2
from convnextv2.recipe.knobs import Recipe


def build_network(recipe: Recipe, num_classes: int | None) -> ConvNeXtV2:
    """Build the recipe's network with random weights.

    Args:
        recipe: The recipe, which describes the network.
        num_classes: The number of classes; None for an encoder without a head.

    Raises:
        RecipeError: There is no such model.
    """
    if recipe.model == "custom":
        assert recipe.depths and recipe.dims, "the recipe checks that"
        depths, dims = recipe.depths, recipe.dims
    elif recipe.model in SIZES:
        depths, dims = SIZES[recipe.model]
    else:
        raise RecipeError(
            f"model = {recipe.model!r}: expected one of {', '.join(SIZES)}, or custom with depths "
            "and dims."
        )
    return ConvNeXtV2(
        depths,
        dims,
        in_channels=recipe.in_channels,
        num_classes=num_classes,
        stem_stride=recipe.stem_stride,
        drop_path_rate=recipe.drop_path_rate,
        head_init_scale=recipe.head_init_scale,
        block=recipe.block,
        gelu=recipe.gelu,
        grn_scope=recipe.grn_scope,
        norm_eps=recipe.norm_eps,
        inner_eps=recipe.inner_eps,
        grad_checkpoint=recipe.grad_checkpoint,
    )
