"""Images in tar files of WebDataset's form, read at random through an index."""
