"""Classification of images: its training, its measurement, its report."""
