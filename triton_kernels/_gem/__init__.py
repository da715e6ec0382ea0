"""Kernels of the gradient projection; `saccade.triton_kernels.gem` calls them."""
