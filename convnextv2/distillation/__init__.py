"""Distillation: a student learns from the outputs of a teacher for the same images."""
