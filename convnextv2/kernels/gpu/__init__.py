"""The kernels for NVIDIA GPUs, in Triton.

They compute the depthwise convolution, and GELU with GRN, as the C++ files beside this folder do,
and also layer normalisation, for float32, bfloat16 and float16. Sums are float32 and run in a fixed
order: sums that exceed one program are written as partial sums, which one reduction then adds. A
call therefore gives the same bits each time; no kernel uses atomic operations or chooses its block
sizes by timing.

Nothing here is imported before a tensor on such a GPU needs it (`kernels.choice`), since Triton is
not installed on every machine. If TRITON_INTERPRET=1 is set before the import, the kernels run on
the CPU, which is how they are tested on machines without a GPU.
"""
