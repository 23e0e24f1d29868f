"""Faster implementations of single operations: in C++ for CPUs, and in Triton for NVIDIA GPUs.

`choice` decides whether they run, `functional` has the layers that use them, and `pixels` has those
for images. Each is tested against the plain form in `convnextv2.model.layers`, or against Pillow.
"""
