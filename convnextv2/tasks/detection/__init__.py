"""Detection and instance segmentation: their training, their evaluation and their report."""
