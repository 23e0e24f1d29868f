"""Weights of this package and of other libraries: open, describe, convert and write them.

The way of a file through this package: `containers` opens it, `detect` recognises its format,
`renaming` gives its tensors canonical names from the table in `names`, `describe` tells what
network they are, `opened` puts these together, and `restore` or `adapt` fill a model from it.
"""
