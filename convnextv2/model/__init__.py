"""The networks: ConvNeXt V2 and its layers, FCMAE on visible tiles, segmentors and detectors.

From the rest of this package, it imports only the kernels, the errors and the limits in `sizes`.
"""
