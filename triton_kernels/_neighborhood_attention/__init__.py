"""Kernels of neighborhood attention; `saccade.triton_kernels.neighborhood_attention` calls them."""
