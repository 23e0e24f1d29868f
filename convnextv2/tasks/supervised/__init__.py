"""Learning from labelled images: what one class and any number of labels have in common."""
