"""The network: layers, ConvNeXt V2, the visible-tiles layout, FCMAE. Imports torch and our errors, nothing else of ours."""
