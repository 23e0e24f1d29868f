"""Faster forms of single operations: in C++ on CPUs, and in Triton on NVIDIA GPUs.

`choice` decides whether they run, `functional` has the layers that use them, and `pixels` the work
on images. Each is tested against the plain form in `convnextv2.model.layers`, or against Pillow's.
"""
