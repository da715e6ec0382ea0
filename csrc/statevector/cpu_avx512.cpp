#define SACCADE_ISA_NAMESPACE avx512
#define SACCADE_BYTES 64
#include "statevector/cpu_kernel.inl"
