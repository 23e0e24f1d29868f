"""Learning from annotated images: the code that segmentation and detection share."""
