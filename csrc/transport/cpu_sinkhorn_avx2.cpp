#define SACCADE_ISA_NAMESPACE avx2
#define SACCADE_BYTES 32
#define SACCADE_REGISTERS 16
#include "transport/cpu_kernel.inl"
