"""Images in tar files in the WebDataset format, with random access through an index."""
