"""Classification of images: its training, its evaluation and its report."""
