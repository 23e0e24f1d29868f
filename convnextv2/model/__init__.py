"""The network: layers, ConvNeXt V2, the visible-tiles layout and FCMAE.

It imports torch, the native kernels and our errors, and nothing else of ours.
"""
