"""Distillation: a student learns what a teacher says of the same images."""
