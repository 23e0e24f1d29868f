"""Evaluation: losses, figures and the report.

Its functions take functions and arrays, so that the same code measures any model.
"""
