"""Semantic segmentation: a class for every pixel. Its training, its evaluation and its report."""
