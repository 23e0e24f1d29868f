"""Any number of labels for each image: its training, its evaluation and its report."""
