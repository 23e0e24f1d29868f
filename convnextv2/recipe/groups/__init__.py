"""The knobs of a recipe, in one file for each group."""
