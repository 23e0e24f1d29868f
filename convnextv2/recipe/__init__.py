"""Recipes: the knobs of a run, MindCV's names and defaults for them, and how both are read."""
