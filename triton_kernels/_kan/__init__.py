"""The parts of `saccade.triton_kernels.kan`."""
