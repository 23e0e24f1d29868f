"""Evaluation: losses, figures, and the report; all take functions and arrays, so that any model is measured by the same code."""
