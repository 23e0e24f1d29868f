"""Faster forms of single operations, each tested against the plain one in `convnextv2.model.layers`."""
