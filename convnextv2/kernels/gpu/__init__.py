"""The kernels for NVIDIA GPUs, in Triton.

They compute what the C++ files beside this folder do, for float32, bfloat16 and float16, and layer
normalisation as well. Sums are float32 and run in a fixed order: what cannot be added within one
program is written as partial sums, and these are added by one reduction. So a call gives the same
bits each time; no kernel has atomic operations or chooses its block sizes by timing.

Nothing here is imported before a tensor on such a GPU asks for it (`kernels.choice`): Triton is not
there on every machine. With TRITON_INTERPRET=1, set before the import, the kernels run on the CPU,
which is how they are tested where there is no GPU.
"""
