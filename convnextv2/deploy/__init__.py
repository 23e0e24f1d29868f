"""Artifacts: a trained model in another format, measured against the model that it was made from.

A `Graph` is the PyTorch module that an artifact is made from: the network with named outputs. A
`Runner` is what an artifact is opened as: a function from an array to the same outputs, whatever
engine computes them.
"""
