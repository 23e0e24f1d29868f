"""Evaluation: losses, figures and the report page.

The functions take callables and arrays, so that the same code measures any model.
"""
