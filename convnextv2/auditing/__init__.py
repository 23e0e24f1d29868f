"""Audits of image data: bad files, duplicates, leaks between splits, and probable wrong labels."""
