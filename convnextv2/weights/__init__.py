"""Weights of this package and of other libraries: open, describe, convert and write them.

The way of a file through this room: `containers` opens it, `names` and `describe` tell what network
it holds, `opened` puts these together, and `restore` or `adapt` fill a model from it.
"""
