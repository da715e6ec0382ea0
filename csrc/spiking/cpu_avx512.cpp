#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 64
#include "spiking/cpu_kernel.inl"
