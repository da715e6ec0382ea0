"""Triton kernels of spiking neurons."""
