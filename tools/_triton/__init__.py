"""Launches of every operator's Triton kernels, a module an operator: CASES and launches()."""
