"""Faster forms of single operations on the CPU, in C++.

Each is tested against the plain form in `convnextv2.model.layers`, or against Pillow's.
"""
