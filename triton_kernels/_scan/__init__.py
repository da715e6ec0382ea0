"""Kernels of the scans and the causal convolution; `saccade.triton_kernels.scan` calls them."""
