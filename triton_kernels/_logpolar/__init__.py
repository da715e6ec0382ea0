"""Parts of the Triton kernels of log-polar sampling and its inverse."""
