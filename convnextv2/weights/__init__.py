"""Weights of this package and of other libraries: open, describe, convert and write them.

The way of a file through this package: `containers` opens it, `detect` and `names` recognise its
format, `describe` tells what network it holds, `opened` puts these together, and `restore` or
`adapt` fill a model from it.
"""
