"""Evaluation: losses, figures and the report.

All of it takes functions and arrays, so that the same code measures any model.
"""
