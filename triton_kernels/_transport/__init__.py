"""Kernels of entropic transport; `saccade.triton_kernels.transport` calls them."""
