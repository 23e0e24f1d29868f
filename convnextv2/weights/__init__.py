"""Weights: our checkpoint files, and putting weights into a model with a report of what happened."""
