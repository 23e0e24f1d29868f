"""Artifacts: a trained model in another format, compared with the model that it was made from.

An artifact is written from a `Graph`, a PyTorch module of the network with named outputs. Opening
an artifact returns a `Runner`, a function from an array to the same outputs, in any engine.
"""
